"""Any audio file decoded to one channel, at its own rate.

By libsndfile where it knows the format, else by FFmpeg (PyAV): what the file
holds decides, not what it is called. Whatever reading a file raises is that
file's fault and becomes an `AudioError`; the calls of these libraries are
caught one by one, so that a mistake of ours is not.
"""

import io
import math
from itertools import chain

import numpy as np
import soundfile
import soxr

from speechbrain_mser.dataio import audio_limits
from speechbrain_mser.dataio.audio_limits import (
    REPAIRED,
    STREAMED,
    AudioError,
    TooLarge,
    check_form,
    check_range,
    check_size,
)
from speechbrain_mser.dataio.downmix import downmix
from speechbrain_mser.dataio.joined_streams import (
    content,
    is_adts,
    split_streams,
)

# What FFmpeg may take a file for. Not playlists and the like, which name other
# files and hosts.
_DEMUXERS = (
    "aac,ac3,adts,aiff,amr,ape,asf,au,avi,caf,eac3,flac,flv,gsm,matroska,"
    "webm,mov,mp4,m4a,3gp,3g2,mj2,mp3,mpeg,mpegts,ogg,rm,tta,voc,w64,wav,wv"
)
# Samples at a time, where a file can only be read from its beginning.
_BLOCK = 65536


def decode(file, start=0.0, stop=None):
    """Decode a file, or a part of one.

    Arguments
    ---------
    file : str or io.BytesIO
        A file that is there, or its content.
    start : float
        Where to begin, in seconds.
    stop : float, optional
        Where to end, in seconds; None, or beyond the end, means the end.

    Returns
    -------
    samples : numpy.ndarray
        ``[time]``, float32, mixed by `downmix`.
    rate : int
        The file's own, in Hz.

    Raises
    ------
    AudioError
        It cannot be decoded, is truncated, too large, or there is nothing
        between start and stop.
    """
    parts = _split(file)
    if len(parts) == 1:
        return _decode(parts[0], start, stop)
    whole = [_decode(part, 0.0, None) for part in parts]
    rate = whole[0][1]
    samples = np.concatenate(
        [
            one if its == rate else soxr.resample(one, its, rate)
            for one, its in whole
        ]
    )
    first, last = _bounds(start, stop, len(samples), rate)
    check_size(last - first, rate)
    return samples[first:last], rate


def duration(file):
    """How long a file is once decoded, from its header where that knows.

    Arguments
    ---------
    file : str or io.BytesIO
        A file that is there, or its content.

    Returns
    -------
    float
        In seconds.

    Raises
    ------
    AudioError
        It cannot be decoded, is truncated, or too large.
    """
    return sum(map(_duration, _split(file)))


def decode_blocks(file):
    """Decode a file a block at a time, whatever its length.

    Arguments
    ---------
    file : str or io.BytesIO
        A file that is there, or its content.

    Yields
    ------
    samples : numpy.ndarray
        ``[time, channel]``, float32, checked by `check_range`.
    rate : int
        In Hz; another one where another recording of a joined file begins.
    ogg : bool
        Whether the channels are in Ogg's order, for `downmix`.

    Raises
    ------
    AudioError
        It cannot be decoded, or is truncated.
    """
    for part in _split(file):
        sound = _open_soundfile(part)
        if isinstance(sound, str):
            blocks = ((*block, False) for block in _blocks(part, sound))
        else:
            blocks = _soundfile_blocks(sound)
        for samples, rate, ogg in blocks:
            if samples.size:
                check_range(samples)
                yield samples, rate, ogg


def _call(function, *args, **kwargs):
    """Call another library; what it raises is the file's fault."""
    try:
        return function(*args, **kwargs)
    except AudioError:
        raise
    except Exception as error:
        # FFmpeg's has a number, and is of a header that claims too much
        numbered = getattr(error, "errno", None) is not None
        if isinstance(error, MemoryError) and not numbered:
            raise TooLarge from None
        # soundfile's, FFmpeg's, anyone's
        for name in ("error_string", "strerror"):
            reason = getattr(error, name, None)
            if reason:
                break
        else:
            reason = str(error).strip() or "no reason given"
            if not isinstance(error, (ValueError, RuntimeError)):
                reason = f"{type(error).__name__}: {reason}"
        raise AudioError(f"cannot be decoded as audio ({reason})") from None


def _split(file):
    try:
        return split_streams(file)
    except OSError as error:
        raise AudioError(f"cannot be read ({error.strerror})") from None


def _decode(file, start, stop):
    sound = _open_soundfile(file)
    if isinstance(sound, str):
        return _read_container(file, start, stop, sound)
    with sound:
        return _read_soundfile(sound, start, stop)


def _duration(file):
    sound = _open_soundfile(file)
    if isinstance(sound, str):
        blocks = _blocks(file, sound)
        found = [(len(block), rate) for block, rate in blocks]
        return sum(n for n, _ in found) / found[0][1] if found else 0.0
    with sound:
        seconds = sound.frames / sound.samplerate
        # Of a longer one parts may be read.
        if seconds <= audio_limits.MAX_SECONDS:
            check_size(sound.frames, sound.samplerate, sound.channels)
        return seconds


def _open_soundfile(file):
    """The file, open, or why libsndfile is not to read it."""
    try:
        sound = _call(soundfile.SoundFile, _rewound(file))
    except AudioError as error:
        return str(error)
    if sound.format == "MP3":
        with content(file) as data:
            if is_adts(data):
                sound.close()
                return "AAC"
    # A streamed FLAC does not say its length, and libsndfile cannot find its
    # end; of MPEG's older layers it only guesses it.
    if sound.frames >= np.iinfo(np.int64).max or sound.subtype in (
        "MPEG_LAYER_I",
        "MPEG_LAYER_II",
    ):
        sound.close()
        return f"{sound.format} of unknown length"
    try:
        check_form(sound.samplerate, sound.channels)
        _check_complete(_call(getattr, sound, "extra_info"))
    except AudioError:
        sound.close()
        raise
    return sound


def _rewound(file):
    """The file; its content from the beginning."""
    if isinstance(file, io.BytesIO):
        file.seek(0)
    return file


def _check_complete(libsndfile_log):
    repaired = REPAIRED.search(libsndfile_log)
    if repaired is None:
        return
    promised, held = map(int, repaired.groups())
    if held < promised < STREAMED:
        raise AudioError(
            f"truncated: its header promises {promised} bytes of audio, the "
            f"file holds {held}",
            "truncated",
        )


def _bounds(start, stop, n_samples, rate):
    """The first sample to read and the one after the last."""
    first, last = round(start * rate), n_samples
    if stop is not None:
        last = min(round(stop * rate), last)
    if first >= last:
        raise _nothing_between(start, stop, n_samples / rate)
    return first, last


def _nothing_between(start, stop, seconds):
    """The error for a start and a stop that enclose no audio."""
    end = "the end" if stop is None else f"{stop:g} s"
    return AudioError(
        f"no audio between {start:g} s and {end}: the file has {seconds:.2f} s"
    )


def _read_soundfile(sound, start, stop):
    rate = sound.samplerate
    first, last = _bounds(start, stop, sound.frames, rate)
    # Before reading, so that a day of audio does not fill the memory.
    check_size(last - first, rate, sound.channels)
    _go_to(sound, first)
    samples = _call(
        sound.read, last - first, dtype=_sample_type(sound), always_2d=True
    )
    if len(samples) < last - first:
        raise _truncated(len(samples), last - first)
    return _mixed(_scaled(samples), ogg=sound.format == "OGG"), rate


def _soundfile_blocks(sound):
    """The same, of an open file, which is closed at the end."""
    with sound:
        dtype = _sample_type(sound)
        left = sound.frames
        while left > 0:
            block = _call(
                sound.read, min(_BLOCK, left), dtype=dtype, always_2d=True
            )
            if not len(block):
                raise _truncated(sound.frames - left, sound.frames)
            left -= len(block)
            yield _scaled(block), sound.samplerate, sound.format == "OGG"


def _sample_type(sound):
    return "int16" if sound.subtype == "PCM_16" else "float32"


def _scaled(samples):
    """Integers of 16 bits as libsndfile's floats, exactly; it is slower."""
    if samples.dtype == np.int16:
        samples = samples * np.float32(2.0**-15)
    return samples


def _truncated(held, promised):
    return AudioError(
        f"truncated: {held} of {promised} samples could be decoded",
        "truncated",
    )


def _mixed(samples, ogg=False):
    # Before it: what is absurd in two channels may cancel
    if samples.shape[1] > 1 and samples.size:
        check_range(samples)
    return downmix(samples, ogg)


def _go_to(sound, first):
    if not first:
        return
    if sound.seekable():
        _call(sound.seek, first)
        return
    # Some telephones' codecs, such as GSM 6.10
    while first > 0:
        first -= len(_call(sound.read, min(first, _BLOCK), dtype="int16"))


def _read_container(file, start, stop, why):
    """What lies between start and stop, decoded by FFmpeg.

    Nothing before the start is kept and nothing after the stop is decoded.
    """
    pieces, kept, position, rate = [], [], 0, 0
    for block, rate in _blocks(file, why):
        first = round(start * rate)
        last = math.inf if stop is None else round(stop * rate)
        if kept and kept[0].shape[1] != block.shape[1]:
            pieces.append(_mixed(np.concatenate(kept)))
            kept = []
        kept.append(block[max(first - position, 0) :])
        position += len(block)
        if position >= last:
            break
        check_size(position - first, rate, block.shape[1])
    if not rate:
        raise AudioError(
            "cannot be decoded as audio (the audio stream is empty)"
        )
    if min(position, last) <= first:
        raise _nothing_between(start, stop, position / rate)
    samples = np.concatenate([*pieces, _mixed(np.concatenate(kept))])
    return samples[: None if stop is None else last - first], rate


def _blocks(file, why):
    """``[time, channel]`` float32 blocks of a file, each with the first's rate.

    Arguments
    ---------
    file : str or io.BytesIO
        A file that is there, or its content.
    why : str
        Why libsndfile does not read it.
    """
    try:
        import av
    except ImportError:
        raise AudioError(
            f"{why}; mp4, m4a, aac, webm and the like are read with PyAV: pip "
            "install av, or install this package with the extra 'containers'"
        ) from None
    # Text in tags need not be UTF-8; a name is not to be taken for a protocol.
    name = _rewound(file) if isinstance(file, io.BytesIO) else f"file:{file}"
    container = _call(
        av.open,
        name,
        options={"format_whitelist": _DEMUXERS},
        metadata_errors="replace",
    )
    with container:
        if not container.streams.audio:
            raise AudioError("the file has no audio stream")
        frames = container.decode(container.streams.audio[0])
        before, rate, resampler = None, 0, None
        # Whatever the resampler holds back comes at the end.
        for frame in chain(
            iter(lambda: _call(next, frames, None), None), [None]
        ):
            if frame is not None:
                kind = frame.layout.name, frame.format.name, frame.sample_rate
                if kind != before:
                    if resampler:
                        yield from _resampled(resampler, None, rate)
                    check_form(frame.sample_rate, frame.layout.nb_channels)
                    rate = rate or frame.sample_rate
                    # A broadcast may go from 5.1 to stereo midway. Its own
                    # layout: nothing is mixed behind our back. Not planar:
                    # PyAV 18 crashes on planes of eight channels.
                    resampler = _call(
                        av.AudioResampler, "flt", frame.layout, rate
                    )
                    before = kind
            if resampler:
                yield from _resampled(resampler, frame, rate)


def _resampled(resampler, frame, rate):
    for block in _call(resampler.resample, frame):
        samples = _call(block.to_ndarray)
        yield samples.reshape(-1, block.layout.nb_channels), rate
