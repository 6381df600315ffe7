"""The frames of MP3 files, counted: their headers only estimate how many.

An MP3 file is a row of frames, each with a small header of its own. The first
may say how many there are (Xing, Info, VBRI). Files out of a pipe or a web
service do not say, and decoders guess from the size: too many, or too few,
and then the end is lost. Of joined files the first speaks for itself alone.
"""

import struct
from dataclasses import dataclass
from typing import NamedTuple

from speechbrain_mser.dataio.audio_limits import AudioError

# Hz, by version: 3 is MPEG-1, 2 MPEG-2, 0 MPEG-2.5
_RATES = {
    3: (44100, 48000, 32000),
    2: (22050, 24000, 16000),
    0: (11025, 12000, 8000),
}
# kbit/s, by whether it is MPEG-1 and by layer
_LOW = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_HIGH = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_BITRATES = {
    (True, 1): range(32, 449, 32),
    (True, 2): (32, 48, 56, *_HIGH[4:], 384),
    (True, 3): _HIGH,
    (False, 1): (32, 48, 56, 64, 80, *range(96, 193, 16), 224, 256),
    (False, 2): _LOW,
    (False, 3): _LOW,
}
# Of other bytes, such as a tag's, a few in a row may look like frames.
_MIN_FRAMES = 4
# What a file may have after its last frame without being walked through: an
# ID3v1 tag and a cut frame's rest.
_TAIL = 256


class _Frame(NamedTuple):
    # In bytes
    size: int
    # Version, layer and rate, which neighbours have in common
    kind: tuple
    # Where a tag would be that says how many frames there are
    tag: int


@dataclass
class _Stream:
    # Bytes; the end is that of the last frame
    begin: int
    end: int
    kind: tuple
    # As its first frame says, which is then not counted; None if it does not
    promised: int | None
    has_tag: bool
    n_frames: int = 0


def split_mpeg(data):
    """The streams of an MP3 file, each with the right number of frames.

    Arguments
    ---------
    data : bytes or mmap.mmap
        The file.

    Returns
    -------
    list of bytes
        Files of one stream each, whose first frame says how many there are;
        or empty, when the whole file is such a one, or none of layer III.

    Raises
    ------
    AudioError
        Truncated: a first frame promises more than there are.
    """
    begin = skip_id3(data, 0)
    first = _frame(data, begin)
    if first is None or first.kind[1] != 3 or _is_whole(data, begin, first):
        return []
    streams = [
        stream
        for number, stream in enumerate(_streams(data, begin))
        if number == 0 or stream.n_frames >= _MIN_FRAMES
    ]
    for stream in streams:
        # Writers differ in whether the first frame counts
        if (stream.promised or 0) > stream.n_frames + 1:
            raise AudioError(
                f"truncated: its header promises {stream.promised} frames, "
                f"the file holds {stream.n_frames}"
            )
    return [_as_file(data, stream) for stream in streams]


def skip_id3(data, position):
    """Where the ID3v2 tag at a position ends; the position if there is none.

    Arguments
    ---------
    data : bytes or mmap.mmap
        The file.
    position : int
        In it.

    Returns
    -------
    int
        In bytes.

    Example
    -------
    >>> skip_id3(b"ID3\\x04\\x00\\x00" + bytes([0, 0, 1, 2]) + bytes(130), 0)
    140
    """
    head = data[position : position + 10]
    if len(head) < 10 or head[:3] != b"ID3":
        return position
    # Seven bits of each byte
    size = sum((byte & 127) << 7 * k for k, byte in enumerate(head[:5:-1]))
    return position + 10 + size


def _frame(data, position):
    """The frame whose header is at a position, or None."""
    head = data[position : position + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bitrate, rate, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    # Bitrate 0 is "free"; all others that are left out are reserved.
    if version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3:
        return None
    kbps = _BITRATES[version == 3, layer][bitrate - 1]
    hertz = _RATES[version][rate]
    samples = 384 if layer == 1 else 1152
    if layer == 3 and version != 3:
        samples = 576
    slot = 4 if layer == 1 else 1
    size = (samples * kbps * 125 // (hertz * slot) + padding) * slot
    mono = head[3] >> 6 == 3
    side = (17 if mono else 32) if version == 3 else (9 if mono else 17)
    return _Frame(size, (version, layer, rate), 4 + side)


def _promise(data, position, frame):
    """Whether a frame is a tag, the number of frames and of bytes it says."""
    tag = data[position + frame.tag : position + frame.tag + 16]
    if tag[:4] in (b"Xing", b"Info") and len(tag) == 16:
        flags, *numbers = struct.unpack(">3I", tag[4:])
        n_frames = numbers.pop(0) if flags & 1 else None
        return True, n_frames, numbers.pop(0) if flags & 2 else None
    tag = data[position + 36 : position + 54]
    if tag[:4] == b"VBRI" and len(tag) == 18:
        n_bytes, n_frames = struct.unpack(">2I", tag[10:])
        return True, n_frames, n_bytes
    return False, None, None


def _is_whole(data, begin, first):
    """Whether the first frame speaks for the whole file, to the last byte."""
    is_tag, n_frames, n_bytes = _promise(data, begin, first)
    if not is_tag or not n_frames or not n_bytes:
        return False
    return 0 <= len(data) - begin - n_bytes <= _TAIL


def _walk(data, position):
    """All frames, with their places and whether a tag lies before them."""
    kind, after_tag = None, False
    while position < len(data):
        frame = _frame(data, position)
        end = position + frame.size if frame else 0
        # Two headers that agree are no chance; nor is one beside a frame.
        if frame and end <= len(data) and frame.kind != kind:
            beside = _frame(data, end)
            if end < len(data) and (not beside or beside.kind != frame.kind):
                frame = None
        if frame and end <= len(data):
            yield position, frame, after_tag
            kind, after_tag, position = frame.kind, False, end
            continue
        kind = None
        after = skip_id3(data, position)
        after_tag |= after > position
        found = data.find(b"\xff", max(after, position + 1))
        position = found if found >= 0 else len(data)


def _streams(data, begin):
    """Runs of frames that one decoder can read."""
    stream = None
    for position, frame, after_tag in _walk(data, begin):
        is_tag, promised, _ = _promise(data, position, frame)
        if (
            stream is None
            or is_tag
            or after_tag
            or frame.kind != stream.kind
            or stream.n_frames == stream.promised
        ):
            if stream:
                yield stream
            stream = _Stream(position, 0, frame.kind, promised, is_tag)
        stream.n_frames += not is_tag
        stream.end = position + frame.size
    if stream:
        yield stream


def _as_file(data, stream):
    """A file of one stream, whose first frame says how many there are."""
    begin = stream.begin
    head = data[begin : begin + 4]
    if stream.has_tag:
        if stream.promised:
            return data[begin : stream.end]
        begin += _frame(data, begin).size
    # The stream's own header, without a checksum, large enough for the tag
    head = bytes([head[0], head[1] | 1, head[2] & 0x0C | 0x80, head[3]])
    frame = _frame(head, 0)
    tag = bytearray(frame.size)
    tag[:4] = head
    tag[frame.tag : frame.tag + 12] = struct.pack(
        ">4s2I", b"Info", 1, stream.n_frames
    )
    return bytes(tag) + data[begin : stream.end]
