"""What the tests of this folder share: `recorded_training`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
