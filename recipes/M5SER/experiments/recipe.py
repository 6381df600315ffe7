"""The recipe that these experiments run: importing this finds its scripts."""

import sys
from pathlib import Path

RECIPE = Path(__file__).resolve().parent.parent
sys.path.append(str(RECIPE))
