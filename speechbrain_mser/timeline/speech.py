"""Where speech is, as it is heard: silero-vad's network, and its regions."""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F

from speechbrain_mser import SAMPLE_RATE
from speechbrain_mser.errors import InputError

# What the network hears at a time, 32 ms, and of what came before.
FRAME, CONTEXT = 512, 64
# Speech begins at this probability and is over well below it, as in
# silero-vad's own rule.
THRESHOLD, BELOW = 0.5, 0.15
# In seconds: a pause that parts regions, the shortest region, and what is
# added at both ends of one.
PAUSE, SHORTEST, MARGIN = 0.5, 0.25, 0.1
# Its spectrum's, in samples, and its convolutions' strides.
_WINDOW, _HOP = 256, 128
_STRIDES = (1, 2, 2, 1)


@dataclass(frozen=True)
class Span:
    """Speech, as far as it is known.

    Arguments
    ---------
    start, end : int
        In samples; from start to end there is speech for sure.
    ended : bool
        Whether it is known to end there.
    """

    start: int
    end: int
    ended: bool


class SpeechNetwork:
    """silero-vad's network, with what it remembers of one channel.

    The package's own module runs frame by frame, and sets torch's threads to
    one for the whole process when it is imported; this computes the same from
    the same weights, all frames of a block together but for the recurrence,
    in a sixth of the time.

    Example
    -------
    >>> import numpy as np
    >>> SpeechNetwork()(np.zeros(2 * FRAME, np.float32)).shape
    (2,)
    """

    def __init__(self):
        self.weights = _load_weights()
        self.context = torch.zeros(CONTEXT)
        self.hidden = self.cell = torch.zeros(128)

    @torch.no_grad()
    def __call__(self, samples):
        """How likely speech is in each frame.

        Arguments
        ---------
        samples : numpy.ndarray
            ``[n * FRAME]``, float32, following on those of the last call.

        Returns
        -------
        numpy.ndarray
            ``[n]``, from 0 to 1.
        """
        weights, samples = self.weights, torch.from_numpy(samples)
        heard = torch.cat([self.context, samples])
        self.context = samples[-CONTEXT:].clone()
        frames = heard.unfold(0, CONTEXT + FRAME, FRAME)
        frames = F.pad(frames[:, None], (0, CONTEXT), "reflect")[:, 0]
        # [n, 4, 258]: four windows in a frame, real and imaginary parts
        wave = frames.unfold(1, _WINDOW, _HOP) @ weights.basis
        real, imaginary = wave.chunk(2, dim=-1)
        states = (real.square() + imaginary.square()).sqrt()
        for kernel, bias, stride in weights.convolutions:
            # [n, time, channels, 3]: as products of matrices, in half the time
            near = F.pad(states, (0, 0, 1, 1)).unfold(1, 3, stride)
            states = (near.flatten(2) @ kernel + bias).relu()
        states = self._recur(states[:, 0]).relu()
        return (states @ weights.output + weights.output_bias).sigmoid().numpy()

    def _recur(self, states):
        """The LSTM's outputs, ``[n, 128]``."""
        weights, outputs = self.weights, []
        for gates in F.linear(states, weights.into_gates, weights.gates_bias):
            gates = gates + weights.gates @ self.hidden
            into, keep, new, out = gates.chunk(4)
            self.cell = keep.sigmoid() * self.cell + into.sigmoid() * new.tanh()
            self.hidden = out.sigmoid() * self.cell.tanh()
            outputs.append(self.hidden)
        return torch.stack(outputs)


class _Weights:
    """The network's, from its package's state dict, as they are used."""

    def __init__(self, state):
        state = {name: value.detach() for name, value in state.items()}
        self.basis = state["_model.stft.forward_basis_buffer"][:, 0].T
        layers = [f"_model.encoder.{n}.reparam_conv" for n in range(4)]
        self.convolutions = [
            # [out, in, 3] to [in * 3, out]
            (
                state[f"{name}.weight"].flatten(1).T,
                state[f"{name}.bias"],
                stride,
            )
            for name, stride in zip(layers, _STRIDES, strict=True)
        ]
        recurrent = "_model.decoder.rnn"
        self.into_gates = state[f"{recurrent}.weight_ih"]
        self.gates = state[f"{recurrent}.weight_hh"]
        self.gates_bias = (
            state[f"{recurrent}.bias_ih"] + state[f"{recurrent}.bias_hh"]
        )
        self.output = state["_model.decoder.decoder.2.weight"][0, :, 0]
        self.output_bias = state["_model.decoder.decoder.2.bias"]


@cache
def _load_weights():
    """Those of the installed package, for 16 kHz."""
    package = find_spec("silero_vad")  # found and not imported, see above
    if package is None:
        raise InputError(
            "speech is found with silero-vad, which is not installed: pip "
            "install silero-vad, or install this package with the extra "
            "'timeline'; with the turns of an RTTM file it is not needed"
        )
    path = Path(package.origin).parent / "data" / "silero_vad.jit"
    try:
        return _Weights(torch.jit.load(path, map_location="cpu").state_dict())
    except (RuntimeError, ValueError, KeyError, IndexError) as error:
        raise InputError(
            f"{path} is not the network of silero-vad 6 ({error}): install "
            "silero-vad 6.2.3, or a later 6"
        ) from None


class SpeechFinder:
    """Regions of speech in one channel.

    silero-vad's rule: speech begins with a frame of probability
    ``threshold``; it ends where frames stay below ``threshold - 0.15``, with
    none at ``threshold`` again, for a pause. Regions of less than 0.25 s are
    dropped, and each gets 0.1 s at both ends.

    Arguments
    ---------
    threshold : float
        From 0 to 1.
    pause : float
        In seconds.

    Example
    -------
    >>> import numpy as np
    >>> finder = SpeechFinder()
    >>> finder(np.zeros(10 * FRAME, np.float32)), finder.close()
    ([], [])
    """

    def __init__(self, threshold=THRESHOLD, pause=PAUSE):
        self.network = SpeechNetwork()
        self.rule = SpeechRule(threshold, pause)
        # How far back a region may begin that was not announced.
        self.memory = self.rule.memory

    def __call__(self, samples):
        """Listen on.

        Arguments
        ---------
        samples : numpy.ndarray
            ``[n * FRAME]``, float32.

        Returns
        -------
        list of Span
            What is known now and was not before: regions that ended, at most
            one that goes on.
        """
        return self.rule(self.network(samples))

    def close(self, length=None):
        """What is left at the end.

        Arguments
        ---------
        length : int, optional
            Where the end is, in samples; after the last frame by default.

        Returns
        -------
        list of Span
            The region that the end has cut, if any.
        """
        return self.rule.close(length)


class SpeechRule:
    """From frames' probabilities to regions; see `SpeechFinder`.

    Arguments
    ---------
    threshold, pause
        As for `SpeechFinder`.

    Example
    -------
    >>> rule = SpeechRule()
    >>> [span] = rule([0.9] * 20 + [0.0] * 20)
    >>> span.start, span.end, span.ended
    (0, 11840, True)
    """

    def __init__(self, threshold=THRESHOLD, pause=PAUSE):
        if not 0 < threshold < 1:
            raise InputError(
                f"threshold is {threshold!r}, expected a probability between "
                "0 and 1"
            )
        # Else the ends of two regions could overlap.
        if not 2 * MARGIN < pause <= 10:
            raise InputError(
                f"pause is {pause!r}, expected more than {2 * MARGIN} and at "
                "most 10 seconds"
            )
        self.threshold = threshold
        self.below = max(threshold - BELOW, 0.01)
        self.pause, self.shortest, self.margin = (
            round(seconds * SAMPLE_RATE)
            for seconds in (pause, SHORTEST, MARGIN)
        )
        self.memory = self.pause + self.shortest + self.margin + FRAME
        self.now = 0
        # First sample of speech, and of the silence that may end it.
        self.begin = self.silence = None

    def __call__(self, probabilities):
        """Listen on; as `SpeechFinder`, from ``[n]`` probabilities."""
        spans = []
        for probability in probabilities:
            start, self.now = self.now, self.now + FRAME
            if probability >= self.threshold:
                self.silence = None
                if self.begin is None:
                    self.begin = start
            elif self.begin is not None and probability < self.below:
                self.silence = start if self.silence is None else self.silence
                if start - self.silence >= self.pause:
                    spans += self._span(self.silence + self.margin, True)
        if self.begin is not None:
            end = self.now
            if self.silence is not None:
                end = min(end, self.silence + self.margin)
            spans += self._span(end, False)
        return spans

    def close(self, length=None):
        """What is left at the end; as `SpeechFinder.close`."""
        if self.begin is None:
            return []
        end = self.now if length is None else length
        if self.silence is not None:
            end = min(end, self.silence + self.margin)
        return self._span(end, True)

    def _span(self, end, ended):
        begin, silence = self.begin, self.silence
        if ended:
            self.begin = self.silence = None
        speech = (end if silence is None else silence) - begin
        if speech < self.shortest:
            return []
        return [Span(max(begin - self.margin, 0), end, ended)]
