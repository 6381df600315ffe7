"""Recordings that were joined by joining their files' bytes.

Decoders read the first one, or guess its length from the size of all, and say
nothing of the others.
"""

import io
import itertools
import mmap
import os
import re
from contextlib import contextmanager

from speechbrain_mser.dataio.audio_limits import AudioError
from speechbrain_mser.dataio.mpeg_frames import skip_id3, split_mpeg

# A page of Ogg that begins a stream
_OGG_BEGINS = re.compile(rb"OggS\x00[\x02\x03\x06\x07]")
# The first block of a FLAC file, which has one length
_FLAC = b"fLaC\x00\x00\x00\x22"
# WAV and AIFF, and how they write their size
_CHUNKS = {b"RIFF": "little", b"FORM": "big"}


def split_streams(file):
    """The recordings in a file, one after the other.

    Arguments
    ---------
    file : str or io.BytesIO
        A file that is there, or its content.

    Returns
    -------
    list of (str or io.BytesIO)
        The file itself when it is one recording that says how long it is.

    Raises
    ------
    AudioError
        There are several, in a format in which they are not told apart, or
        an MP3 file is truncated.
    """
    if _is_one_chunk(file):
        return [file]
    with content(file) as data:
        kind = data[:4]
        if kind == b"OggS":
            parts = _split_ogg(data)
        elif kind == b"fLaC":
            parts = _refuse_second(data, data.find(_FLAC, 8))
        elif kind in _CHUNKS:
            parts = _refuse_second(data, _second_chunk(data, _CHUNKS[kind]))
        elif data[4:8] == b"ftyp":
            parts = _refuse_second(data, _second_mp4(data))
        elif is_adts(data):
            parts = []
        else:
            parts = split_mpeg(data)
    return [io.BytesIO(part) for part in parts] or [file]


def is_adts(data):
    """Whether a file is AAC without a container, which looks like MP3.

    Arguments
    ---------
    data : bytes or mmap.mmap
        The file.

    Returns
    -------
    bool
        The first header is one of ADTS.

    Example
    -------
    >>> is_adts(bytes([0xFF, 0xF1, 0x50, 0x80])), is_adts(b"RIFF")
    (True, False)
    """
    begin = skip_id3(data, 0)
    head = data[begin : begin + 2]
    return len(head) == 2 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0


@contextmanager
def content(file):
    """A file's bytes, which are only read where they are looked at.

    Arguments
    ---------
    file : str or io.BytesIO
        A file that is there, or its content.

    Yields
    ------
    bytes or mmap.mmap
        All of them.
    """
    if isinstance(file, io.BytesIO):
        yield file.getvalue()
        return
    with open(file, "rb") as opened:
        if os.fstat(opened.fileno()).st_size == 0:
            yield b""
            return
        with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data


def _is_one_chunk(file):
    """Whether a WAV or AIFF file ends where it says; quick, for thousands."""
    if isinstance(file, io.BytesIO):
        return False
    with open(file, "rb") as opened:
        head = opened.read(8)
        order = _CHUNKS.get(head[:4])
        size = int.from_bytes(head[4:], order or "little")
        return order and os.fstat(opened.fileno()).st_size <= 8 + size


def _split_ogg(data):
    """The links of a chained Ogg file; none if it is not chained."""
    begins = [found.start() for found in _OGG_BEGINS.finditer(data)]
    # Streams that run side by side begin together, before any other page.
    links = [
        begin
        for before, begin in itertools.pairwise(begins)
        if data.find(b"OggS\x00", before + 4, begin) >= 0
    ]
    if not links:
        return []
    ends = [*links, len(data)]
    return [
        data[begin:end] for begin, end in zip([0, *links], ends, strict=True)
    ]


def _second_chunk(data, order):
    """Where another file of the same kind begins after the first, or -1."""
    end = 8 + int.from_bytes(data[4:8], order)
    second = data.find(data[:4], end, end + 64)
    return second if data[second + 8 : second + 12] == data[8:12] else -1


def _second_mp4(data):
    """Where another mp4 begins, by its boxes' sizes, or -1."""
    position = 0
    while position + 16 <= len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        if position and data[position + 4 : position + 8] == b"ftyp":
            return position
        if size == 1:
            size = int.from_bytes(data[position + 8 : position + 16], "big")
        if size < 8:  # the last one, or damage
            break
        position += size
    return -1


def _refuse_second(data, second):
    if second < 0:
        return []
    raise AudioError(
        f"several recordings one after the other in one file (the second "
        f"begins at byte {second} of {len(data)}): take them apart, or join "
        "them with a program for audio"
    )
