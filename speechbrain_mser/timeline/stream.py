"""Emotions of a stream: segments as soon as they are sure."""

from collections import deque
from dataclasses import dataclass, field

import numpy as np
import torch
from speechbrain.utils.logger import get_logger

from speechbrain_mser import SAMPLE_RATE
from speechbrain_mser.dataio.audio_blocks import as_samples
from speechbrain_mser.dataio.audio_limits import DITHER
from speechbrain_mser.errors import InputError
from speechbrain_mser.inference.adaptation import shrink
from speechbrain_mser.inference.heard_speech import HeardSpeech
from speechbrain_mser.lobes.alignment import move_statistics
from speechbrain_mser.timeline.segments import Segment
from speechbrain_mser.timeline.speech import (
    FRAME,
    PAUSE,
    THRESHOLD,
    SpeechFinder,
)
from speechbrain_mser.timeline.turns import TurnFinder, read_turns
from speechbrain_mser.timeline.windows import Cutter, End, Smoother

logger = get_logger(__name__)

# Samples that are taken together, whatever the blocks in which they come:
# half a second.
STEP = 16 * FRAME
# Windows that the recogniser takes at once.
BATCH = 16
# Seconds of speech that a speaker is listened to before the first word on
# them: five windows, most of what listening gives.
FIRST_HEARD = 20.0
# In seconds, how long a window may wait for others to be recognised with.
DELAY = 10.0
WINDOW, HOP = 4.0, 1.0
CHANNELS = "channels"
TEMPERATURE = "temperature"


@dataclass
class _Waiting:
    """A window, or the end of speech, on its way through the recogniser."""

    item: object
    since: int
    samples: np.ndarray | None = None
    features: torch.Tensor | None = None
    length: float = 1.0

    @property
    def to_encode(self):
        return self.samples is not None and self.features is None


@dataclass
class _Speaker:
    """One who speaks: where they are heard, and what is known of them."""

    name: str | None
    channel: int
    finder: object
    cutter: Cutter
    smoother: Smoother
    heard: HeardSpeech
    seconds: float = 0.0
    queue: deque = field(default_factory=deque)


class EmotionStream:
    """Recognises emotions while audio comes in.

    Speech is found by silero-vad, or given by an RTTM file. Windows over it
    are recognised, and become segments; the rule is in
    `speechbrain_mser.timeline.windows`. Segments are the same however the
    audio is cut into blocks, and those that `make_timeline` finds: it is this
    stream.

    *Listening.* A speaker is listened to for 20 seconds of their speech, or
    until the stream ends, before the first window of theirs is recognised; it
    goes on, and a window is recognised with all that was heard of its
    speaker until then. So a stream, which does not know its end, and a file
    have the same segments, in one pass. What the recogniser itself has
    listened to before is where every speaker begins.

    *Latency.* A segment is sure when the emotion has changed or the speech
    has ended: window + hop after its end in the first case, a pause in the
    second, half a second in both, and ``delay`` at most, during which windows wait for
    others to be recognised with; all that after a speaker's first ``listen``
    seconds. After a minute of one emotion a segment ends by itself. For the
    least latency: ``delay=0, listen=False``.

    *Memory.* It holds the audio of a window and a pause, 16 windows at most
    that wait, and the features of a speaker's first ``listen`` seconds,
    however long it runs.

    Arguments
    ---------
    recognizer : EmotionRecognizer
        Who recognises.
    labels : str or list of str, optional
        The candidates, as for ``recognize_batch``.
    speakers : str, path-like or dict, optional
        "channels": two channels with a speaker each; or an RTTM file, or what
        `read_turns` made of one, whose turns are then all the speech there
        is. By default speakers are not told apart.
    listen : bool or float
        Whether to listen to every speaker, label-free; or how many seconds
        before their first window.
    window, hop : float
        Seconds that are recognised at a time, and between their starts.
    delay : float
        As above, in seconds.
    threshold, pause : float
        As for `speechbrain_mser.timeline.speech.SpeechFinder`.
    calibration : str
        As for ``recognize_batch``. A temperature is for segments: none begins
        or ends elsewhere by it. A prior is for windows.

    Raises
    ------
    InputError
        A setting is none, the RTTM file cannot be used, or silero-vad is not
        installed.

    Example
    -------
    >>> stream = EmotionStream(recognizer)  # doctest: +SKIP
    >>> for block in microphone:  # doctest: +SKIP
    ...     for segment in stream.push(block):
    ...         print(segment.start, segment.end, segment.emotion)
    """

    def __init__(
        self,
        recognizer,
        labels=None,
        speakers=None,
        listen=True,
        window=WINDOW,
        hop=HOP,
        delay=DELAY,
        threshold=THRESHOLD,
        pause=PAUSE,
        calibration="none",
    ):
        self.recognizer = recognizer
        self.labels = recognizer.labels(labels)
        if calibration != "none":
            recognizer.load_calibration()
        self.calibration = calibration
        _check_seconds("window", window, 0.5, 30)
        _check_seconds("hop", hop, 0.1, window)
        _check_seconds("delay", delay, 0, 600)
        self._delay = round(delay * SAMPLE_RATE)
        self._first_heard = _first_heard(listen, recognizer)
        self.n_channels = 2 if speakers == CHANNELS else 1
        self._speakers = [
            _Speaker(
                name,
                channel,
                finder,
                *(
                    kind(round(window * SAMPLE_RATE), round(hop * SAMPLE_RATE))
                    for kind in (Cutter, Smoother)
                ),
                recognizer.heard or HeardSpeech(),
            )
            for name, channel, finder in _finders(speakers, threshold, pause)
        ]
        self._incoming = []
        self._audio = np.zeros((0, self.n_channels), np.float32)
        self._now = 0  # samples that were looked at
        self._closed = False

    @property
    def duration(self):
        """Seconds that were pushed so far."""
        return (self._now + sum(map(len, self._incoming))) / SAMPLE_RATE

    @property
    def heard(self):
        """What was heard of each speaker: a `HeardSpeech` by name."""
        return {one.name: one.heard for one in self._speakers}

    def push(self, samples):
        """Take audio that follows on the last.

        Arguments
        ---------
        samples : numpy.ndarray or torch.Tensor
            ``[time]``, or ``[time, 2]`` where channels are speakers; 16 kHz,
            of floating point, any number of them.

        Returns
        -------
        list of Segment
            Those that are sure now, in time's order for each speaker; mostly
            none.

        Raises
        ------
        InputError
            It is no such signal, or the stream is closed. The stream goes on
            as if it had not been pushed.
        """
        if self._closed:
            raise InputError("the stream is closed: make another one")
        samples = as_samples(samples)
        if samples.shape[1] != self.n_channels:
            raise InputError(
                f"{samples.shape[1]} channels; "
                + (
                    "speakers by channels need the two of a call"
                    if self.n_channels == 2
                    else "a stream takes one, mixed by who records (or "
                    'speakers="channels", for two)'
                )
            )
        self._incoming.append(samples.copy())
        segments = []
        if sum(map(len, self._incoming)) >= STEP:
            waiting = np.concatenate(self._incoming)
            whole = len(waiting) // STEP * STEP
            self._incoming = [waiting[whole:]]
            for first in range(0, whole, STEP):
                segments += self._step(waiting[first : first + STEP])
        return segments

    def close(self):
        """End the stream.

        Returns
        -------
        list of Segment
            All that was not yet sure.

        Raises
        ------
        InputError
            An RTTM file has turns beyond the end.
        """
        if self._closed:
            return []
        self._closed = True
        rest = np.concatenate([*self._incoming, self._audio[:0]])
        self._incoming = []
        length = self._now + len(rest)
        padding = np.zeros((-len(rest) % FRAME, self.n_channels), np.float32)
        block = np.concatenate([rest, padding])
        self._audio = np.concatenate([self._audio, block])
        self._now += len(block)
        for speaker in self._speakers:
            spans = []
            if len(block):
                # What goes on is in the second.
                spans = speaker.finder(block[:, speaker.channel])
                spans = [span for span in spans if span.ended]
            for span in spans + speaker.finder.close(length):
                self._cut(speaker, span)
        self._now = length
        return self._recognize(at_end=True)

    def _step(self, block):
        self._audio = np.concatenate([self._audio, block])
        self._now += len(block)
        keep = self._now
        for speaker in self._speakers:
            for span in speaker.finder(block[:, speaker.channel]):
                self._cut(speaker, span)
            needed = self._now - speaker.finder.memory
            keep = min(keep, speaker.cutter.needs(needed), needed)
        # Whatever a window may still need
        self._audio = self._audio[max(keep - self._begin, 0) :]
        return self._recognize()

    @property
    def _begin(self):
        """Where the audio that is held begins."""
        return self._now - len(self._audio)

    def _cut(self, speaker, span):
        for item in speaker.cutter(span):
            samples = None
            if not isinstance(item, End):
                first, last = item.start - self._begin, item.end - self._begin
                samples = self._audio[first:last, speaker.channel].copy()
                if np.abs(samples).max(initial=0) <= DITHER:
                    logger.warning(
                        "%.2f to %.2f s of %s: all samples are zero, or a "
                        "step of 16 bits off; nothing is recognised there",
                        item.start / SAMPLE_RATE,
                        item.end / SAMPLE_RATE,
                        speaker.name or "the audio",
                    )
                    samples = None
            speaker.queue.append(_Waiting(item, self._now, samples))

    def _recognize(self, at_end=False):
        """Encode what has waited long enough; segments that are sure then."""
        waiting = [
            (speaker, one)
            for speaker in self._speakers
            for one in speaker.queue
            if one.to_encode
        ]
        if waiting and (
            at_end
            or len(waiting) >= BATCH
            or self._now - min(one.since for _, one in waiting) >= self._delay
        ):
            for first in range(0, len(waiting), BATCH):
                self._encode(waiting[first : first + BATCH])
        ready = [
            (speaker, one)
            for speaker in self._speakers
            for one in self._ready(speaker, at_end)
        ]
        windows = [pair for pair in ready if pair[1].features is not None]
        scores = {}
        for first in range(0, len(windows), BATCH):
            part = windows[first : first + BATCH]
            for (_, one), row in zip(part, self._score(part), strict=True):
                scores[id(one)] = row
        return [
            Segment(
                start / SAMPLE_RATE,
                end / SAMPLE_RATE,
                speaker.name,
                dict(zip(self.labels, self._calibrated(row), strict=True)),
            )
            for speaker, one in ready
            for start, end, row in _smoothed(
                speaker.smoother, one, scores.get(id(one))
            )
        ]

    def _ready(self, speaker, at_end):
        """Take from a speaker's queue what can be decided on."""
        if not at_end and speaker.seconds < (self._first_heard or 0):
            return []
        ready = []
        while speaker.queue and not speaker.queue[0].to_encode:
            ready.append(speaker.queue.popleft())
        return ready

    @torch.no_grad()
    def _encode(self, waiting):
        """Features of windows; what was heard for the first time is added."""
        encoder, device = self.recognizer.mods.encoder, self.recognizer.device
        longest = max(len(one.samples) for _, one in waiting)
        wavs = torch.zeros(len(waiting), longest)
        for row, (_, one) in zip(wavs, waiting, strict=True):
            row[: len(one.samples)] = torch.from_numpy(one.samples)
        lens = torch.tensor([len(one.samples) / longest for _, one in waiting])
        features, lens = encoder(
            wavs.to(device), lens.to(device), round(encoder.frame_rate)
        )
        # [batch, layers or none, frames, dim]
        counts = (lens * features.shape[-2]).round().long().tolist()
        for (speaker, one), row, count in zip(
            waiting, features, counts, strict=True
        ):
            one.features, one.samples = row[..., :count, :].clone(), None
            if one.item.heard and self._first_heard is not None:
                speaker.heard += HeardSpeech.of(
                    one.features[None],
                    torch.ones(1, device=features.device),
                    self.recognizer.listener,
                )
                speaker.seconds += (one.item.end - one.item.start) / SAMPLE_RATE

    def _score(self, windows):
        """``[windows, n_labels]``, probabilities in float64."""
        counts = [one.features.shape[-2] for _, one in windows]
        first = windows[0][1].features
        shape = (len(windows), *first.shape[:-2], max(counts), first.shape[-1])
        features = first.new_zeros(shape)
        for row, count, (_, one) in zip(features, counts, windows, strict=True):
            row[..., :count, :] = one.features
        lens = torch.tensor(counts) / max(counts)
        _, log_probs = self.recognizer.recognize_features(
            features,
            lens,
            self.labels,
            "none" if self.calibration == TEMPERATURE else self.calibration,
            self._adaptation([speaker for speaker, _ in windows]),
        )
        return log_probs.double().exp().cpu().numpy()

    def _calibrated(self, row):
        """A segment's probabilities, a float for each label."""
        if self.calibration == TEMPERATURE:
            log_probs = self.recognizer.load_calibration().apply(
                torch.from_numpy(row).log()[None],
                self.labels,
                TEMPERATURE,
                self.recognizer.meant_words(self.labels),
            )
            row = log_probs[0].exp()
        return map(float, row)

    def _adaptation(self, speakers):
        """What moves each row by what was heard of its speaker."""
        if self._first_heard is None:
            return None
        training = self.recognizer.mods.connector.standardizer
        own = {
            one.name: shrink(one.heard, training, *self.recognizer.kappas)
            for one in speakers
        }
        rows = [own[one.name].to(self.recognizer.device) for one in speakers]
        return lambda features: move_statistics(features, rows, training)


def _smoothed(smoother, waiting, row):
    if isinstance(waiting.item, End):
        return smoother.end(waiting.item)
    return smoother.add(waiting.item, row)


def _finders(speakers, threshold, pause):
    """Name, channel and finder of everyone who may speak."""
    if speakers is None:
        return [(None, 0, SpeechFinder(threshold, pause))]
    if speakers == CHANNELS:
        return [
            (f"channel {number + 1}", number, SpeechFinder(threshold, pause))
            for number in range(2)
        ]
    if not isinstance(speakers, dict):
        speakers = read_turns(speakers)
    return [
        (name, 0, TurnFinder(turns, name)) for name, turns in speakers.items()
    ]


def _first_heard(listen, recognizer):
    """Seconds of a speaker before their first window; None for no listening."""
    if listen is False:
        return None
    if listen is not True:
        _check_seconds("listen", listen, 0, 600)
    if recognizer.mods.connector.standardizer is None:
        logger.warning(
            "this recogniser was trained without standardisation "
            "(standardize: False): it cannot listen to speakers"
        )
        return None
    return FIRST_HEARD if listen is True else listen


def _check_seconds(name, value, least, most):
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not least <= value <= most
    ):
        raise InputError(
            f"{name} is {value!r}, expected {least:g} to {most:g} seconds"
        )
