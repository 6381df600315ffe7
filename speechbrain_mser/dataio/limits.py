"""Which audio is accepted: by whoever probes files and whoever reads them.

What `load_audio` refuses must not enter a manifest, and probing tens of
thousands of files must not import torch: hence a file of their own.
"""

import re

# Read by PyAV, since libsndfile does not know them.
CONTAINERS = (".mp4", ".m4a", ".aac", ".mov", ".mkv", ".webm")
# Below this there is no syllable to hear and hardly a frame to encode.
MIN_SECONDS = 0.1
# One hour: bounded memory for a file given by mistake.
MAX_SECONDS = 3600.0
# libsndfile repairs a header that promises more than the file holds and tells
# only its log about it. The words are those of WAV, AIFF, AU, RF64 and W64; a
# wrong "RIFF" size is common and harmless.
REPAIRED = re.compile(
    r"^\s*(?:data|SSND|Data Size|Riff size|riff)\s*:\s*(\d+) "
    r"\(should be (\d+)\)",
    re.MULTILINE,
)
# A writer that streams does not know the size and promises the maximum: ffmpeg
# 0xFFFFFFFF, sox and eSpeak NG 0x7FFFF000.
STREAMED = 0x7FFFF000
