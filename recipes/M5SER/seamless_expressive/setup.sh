#!/usr/bin/env bash
# Make the Python environment in which SeamlessExpressive runs.
#
#   setup.sh FOLDER [PYTHON]
#
# FOLDER is made (some 6 GB, minutes); PYTHON must be a Python 3.11, by default
# python3.11. seamless_communication is on no package index: it is taken from
# its repository, at the commit that worker_seamless.py was written for, with
# none of what it would pull in for training and evaluation. Run again, it
# mends what is missing.
set -euo pipefail

COMMIT=90e2b57ac4d82fa2bfaa25caeffe39ceb8b2ebec
SOURCE=${SEAMLESS_SOURCE:-git+https://github.com/facebookresearch/seamless_communication@$COMMIT}

if [ $# -lt 1 ] || [ $# -gt 2 ]; then
  echo "usage: $0 FOLDER [PYTHON]" >&2
  exit 2
fi
folder=$1
python=${2:-python3.11}
here=$(cd "$(dirname "$0")" && pwd)

if ! version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); then
  echo "error: cannot run $python; give a Python 3.11 as the second argument" >&2
  exit 2
fi
if [ "$version" != 3.11 ]; then
  echo "error: $python is Python $version; requirements.txt is for 3.11" >&2
  exit 2
fi

test -x "$folder/bin/python" || "$python" -m venv "$folder"
"$folder/bin/python" -m pip install -r "$here/requirements.txt"
"$folder/bin/python" -m pip install --no-deps "$SOURCE"

# What the worker imports; a system without libsndfile fails here.
if ! "$folder/bin/python" - <<'PYTHON'
import fairseq2.generation
import soundfile
import torch
from seamless_communication.cli.expressivity.predict import pretssel_generator
from seamless_communication.inference import Translator
from seamless_communication.models.unity import load_gcmvn_stats

load_gcmvn_stats("vocoder_pretssel")
print("torch", torch.__version__, "GPU:", torch.cuda.is_available())
PYTHON
then
  echo "error: the environment does not work (above); if libsndfile is missing," \
    "install the system's package libsndfile1 and run this again" >&2
  exit 1
fi
echo "done; worker_python: $(cd "$folder" && pwd)/bin/python"
