"""What every frozen encoder is, whichever model it stands on."""

import torch
from torch import nn
from transformers import AutoConfig, AutoFeatureExtractor

from speechbrain_mser import SAMPLE_RATE
from speechbrain_mser.errors import InputError
from speechbrain_mser.files.fingerprints import weights_digest
from speechbrain_mser.lobes.hub import find_model, resolve_dtype
from speechbrain_mser.lobes.no_remote_code import explained

# The model and the setting that names it, for messages.
WHAT = "the encoder (whisper_hub)"
# What a further pass through the encoder costs besides its frames, as a number
# of frames that could be encoded meanwhile: little on a CPU (measured); on a
# GPU the launch of a thousand kernels (estimated).
FRAMES_PER_PASS = {"cpu": 50}
FRAMES_PER_PASS_ELSEWHERE = 2000
# In seconds: attention takes memory by the square of it.
LONGEST_WINDOW = 600


def find_encoder(source, save_path):
    """An encoder's folder, its configuration, and how it takes audio.

    Arguments
    ---------
    source : str
        Hub name or folder.
    save_path : str
        Where files from the hub are kept.

    Returns
    -------
    folder : pathlib.Path
        As from `find_model`.
    config : transformers.PretrainedConfig
        Its ``config.json``.
    extractor : transformers.FeatureExtractionMixin
        Its ``preprocessor_config.json``.

    Raises
    ------
    InputError
        It cannot be had, or lacks a file.
    """
    files = ("config.json", "preprocessor_config.json")
    folder = find_model(
        str(source), save_path, "the encoder", "whisper_hub", files
    )
    with explained(folder, WHAT):
        config, extractor = (
            auto_class.from_pretrained(folder, trust_remote_code=False)
            for auto_class in (AutoConfig, AutoFeatureExtractor)
        )
    return folder, config, extractor


class FrozenEncoder(nn.Module):
    """The contract of a frozen encoder, and what all of them share.

    Training, the feature store, inference and baselines use of an encoder

    - ``encoder(wavs, wav_lens)``: features and their relative lengths. An
      utterance's features do not depend on its batch-mates;
    - ``hidden_size``, ``n_output_layers`` and ``frame_rate`` (Hz): how wide,
      how many and how dense they are; ``layers`` and ``mean_over_time``;
    - ``describe()``, by which a connector knows its encoder again, and
      ``fingerprint()``, under which features are stored.

    It is never in train mode and has no gradients, whatever a Brain says.

    A subclass calls this constructor before it loads its ``model``, then
    `freeze`; it computes `hidden_states` and says in `settings` what else
    its features depend on. Cutting long utterances into windows, passing
    pieces of like length together, choosing layers and averaging are done
    here, and so is what its ``front_end`` makes of a waveform before.

    Arguments
    ---------
    source : str
        What the user calls the model.
    hidden_size : int
        Width of the hidden states.
    n_layers : int
        Number of layers; hidden states are numbered 0 to ``n_layers``.
    layers : int, list of int or "all"
        Which hidden states to return, counted as in transformers: 0 is what
        goes into the first layer, n the output of layer n, the last one (-1)
        after the final norm. An int gives one layer, a list or "all" several.
    samples_per_frame : int
        The hop from frame to frame.
    samples_of_frame : int
        What a frame must have heard of the audio to be there.
    window : int
        Seconds that go through the model at a time. Longer utterances are
        encoded in windows of equal length and the windows' features joined;
        each window is heard as if it were an utterance.
    mean_over_time : bool
        Return one frame per utterance, the mean over its own: a thousandth of
        the features to store, for connectors that average anyway.
    dtype : str
        Dtype of the weights ("float32", "float16", "bfloat16", or "auto", see
        `resolve_dtype`), whatever the checkpoint is stored in.
    n_positions : int, optional
        Frames that the model has room for, where that is limited.
    """

    # To be raised when the same audio and weights give other features.
    version = 1
    # A `FrontEnd`, which every utterance goes through first.
    front_end = None
    # Whether `hidden_states` takes ``multiple``, as `forward` does.
    takes_multiple = False

    def __init__(
        self,
        source,
        hidden_size,
        n_layers,
        layers,
        samples_per_frame,
        samples_of_frame,
        window,
        mean_over_time,
        dtype,
        n_positions=None,
    ):
        super().__init__()
        if not 1 <= window <= LONGEST_WINDOW:
            raise InputError(
                f"encoder_window is {window!r}, expected 1 to {LONGEST_WINDOW} "
                "seconds"
            )
        self.source, self.dtype_name = str(source), resolve_dtype(dtype)
        self.hidden_size, self.n_layers = hidden_size, n_layers
        self.layers = layer_numbers(layers, n_layers)
        self.several = not isinstance(layers, int)
        self.n_output_layers = len(self.layers)
        self.samples_per_frame = samples_per_frame
        self.samples_of_frame = samples_of_frame
        self.frame_rate = SAMPLE_RATE / samples_per_frame
        # Where features are computed, and in which dtype.
        weight = torch.zeros((), dtype=getattr(torch, self.dtype_name))
        self.register_buffer("like_weights", weight, persistent=False)
        self.max_frames = int(window * self.frame_rate)
        if n_positions is not None:
            self.max_frames = min(self.max_frames, n_positions)
        self.mean_over_time = mean_over_time

    def freeze(self, model, digest):
        """Take a loaded model as it is, for good.

        Arguments
        ---------
        model : torch.nn.Module
            What `hidden_states` uses.
        digest : str
            Of its weights, as from `model_digest`.
        """
        self.model, self.digest = model, digest
        self.requires_grad_(False)
        self.eval()

    def train(self, mode=True):
        """Stay in evaluation mode, whatever the Brain says."""
        del mode
        return super().train(False)

    def describe(self):
        """What a connector's checkpoint remembers: name, width, weights."""
        return {
            "name": self.source,
            "width": self.hidden_size,
            "digest": self.digest,
        }

    def fingerprint(self):
        """All that decides what features an utterance has.

        Returns
        -------
        dict
            Plain values; the weights as a digest, whatever their name.
        """
        described = {
            "weights": weights_digest(self),
            "version": self.version,
            "dtype": self.dtype_name,
            "layers": self.layers if self.several else self.layers[0],
            **self.settings(),
        }
        # Only where it is asked for: what was stored before stays valid.
        if self.mean_over_time:
            described["mean_over_time"] = True
        if self.front_end is not None:
            described["front_end"] = self.front_end.settings()
        return described

    @torch.no_grad()
    def forward(self, wavs, wav_lens=None, multiple=1):
        """Encode a batch of utterances.

        Arguments
        ---------
        wavs : torch.Tensor
            ``[batch, time]``, 16 kHz mono.
        wav_lens : torch.Tensor, optional
            ``[batch]``, relative lengths; by default all are whole.
        multiple : int
            Pad to multiples of so many frames, where the model can
            (Whisper). For each length oneDNN, on a CPU, compiles code and
            keeps it: a long recording's takes hundreds of MiB. Features are
            the same but for rounding.

        Returns
        -------
        features : torch.Tensor
            ``[batch, frames, dim]``, or ``[batch, layers, frames, dim]`` for
            several layers; zero beyond an utterance's length. With
            ``mean_over_time`` one frame, in float32.
        lens : torch.Tensor
            ``[batch]``, relative lengths in frames of what the front end left.
        """
        if wav_lens is None:
            wav_lens = torch.ones(len(wavs), device=wavs.device)
        lengths = (wav_lens * wavs.shape[1]).round().long().clamp(min=1)
        utterances = [
            wav[:length]
            for wav, length in zip(wavs, lengths.tolist(), strict=True)
        ]
        if self.front_end is not None:
            utterances = [self.front_end(wav) for wav in utterances]
        pieces, frames, places, totals = self._cut(utterances)
        longest = max(totals)
        padding = {"multiple": multiple} if self.takes_multiple else {}
        features = self.like_weights.new_zeros(
            len(wavs), self.n_output_layers, longest, self.hidden_size
        )
        for part in self._passes(frames, len(wavs)):
            states = self.hidden_states(
                [pieces[i] for i in part],
                [frames[i] for i in part],
                **padding,
            )
            for number, hidden in states:
                for k, wanted in enumerate(self.layers):
                    if wanted == number:
                        _put(features[:, k], [places[i] for i in part], hidden)
        lens = wav_lens.new_tensor([total / longest for total in totals])
        if self.mean_over_time:
            # Zero beyond an utterance's length, hence the sum is its own.
            sums = features.sum(2, keepdim=True, dtype=torch.float32)
            counts = sums.new_tensor(totals)[:, None, None, None]
            features, lens = sums / counts, torch.ones_like(lens)
        return features if self.several else features[:, 0], lens

    def settings(self):
        """What features depend on besides what `fingerprint` says itself.

        Returns
        -------
        dict
            Plain values.
        """
        raise NotImplementedError

    def hidden_states(self, pieces, frames):
        """Yield hidden states, at least those in ``layers``.

        Arguments
        ---------
        pieces : list of torch.Tensor
            ``[time]`` each, of at most ``max_frames``.
        frames : list of int
            How many frames each of them has.

        Yields
        ------
        number : int
            Which one.
        hidden : torch.Tensor
            ``[pieces, frames, dim]``; what stands beyond a piece's frames
            means nothing, and must not have changed what stands before.
        """
        raise NotImplementedError

    def _count_frames(self, samples):
        """Frames of so many samples; the shortest sound has one."""
        rest = samples - self.samples_of_frame
        return 1 + max(rest, 0) // self.samples_per_frame

    def _cut(self, utterances):
        """Utterances cut into windows of equal length that fit the model.

        Returns
        -------
        pieces : list of torch.Tensor
            Their samples.
        frames : list of int
            Frames of each piece.
        places : list of tuple
            The utterance of each, and which of its frames they are.
        totals : list of int
            Frames of each utterance.
        """
        pieces, frames, places, totals = [], [], [], []
        hop = self.samples_per_frame
        # A window's last frame hears a little of the next one.
        beyond = max(self.samples_of_frame - hop, 0)
        for row, wav in enumerate(utterances):
            total = self._count_frames(len(wav))
            size = -(-total // -(-total // self.max_frames))
            for first in range(0, total, size):
                last = min(first + size, total)
                end = len(wav) if last == total else last * hop + beyond
                pieces.append(wav[first * hop : end])
                frames.append(last - first)
                places.append((row, slice(first, last)))
            totals.append(total)
        return pieces, frames, places, totals

    def _passes(self, frames, most):
        """Which pieces go through the model together: at most so many."""
        order = sorted(range(len(frames)), key=lambda i: -frames[i])
        cost = self._frames_per_pass()
        return [
            part
            for first in range(0, len(order), most)
            for part in _split(order[first : first + most], frames, cost)
        ]

    def _frames_per_pass(self):
        device = self.like_weights.device.type
        return FRAMES_PER_PASS.get(device, FRAMES_PER_PASS_ELSEWHERE)


def layer_numbers(layers, n_layers):
    """Layer numbers from 0 to n_layers, for any way of asking."""
    if layers == "all":
        return list(range(n_layers + 1))
    numbers = [layers] if isinstance(layers, int) else list(layers)
    if not numbers or not all(isinstance(n, int) for n in numbers):
        raise InputError(
            f"encoder_layers is {layers!r}: give a number, a list of numbers, "
            "or 'all'"
        )
    for number in numbers:
        if not -n_layers - 1 <= number <= n_layers:
            raise InputError(
                f"encoder_layers: there is no layer {number} in an encoder "
                f"with {n_layers}; hidden states are numbered 0 (the "
                f"convolutions' output) to {n_layers}, or -1 from the end"
            )
    return [number % (n_layers + 1) for number in numbers]


def _put(features, places, hidden):
    """Copy ``[pieces, frames, dim]`` to where it belongs, without padding."""
    for (row, span), state in zip(places, hidden, strict=True):
        features[row, span] = state[: span.stop - span.start]


def _split(part, frames, cost):
    """Cut pieces, longest first, where that spares more padding than it costs.

    Cut before the k-th, the rest is no longer padded to the longest of all.
    """
    spared = [
        (frames[part[0]] - frames[i]) * (len(part) - k)
        for k, i in enumerate(part)
    ]
    k = spared.index(max(spared))
    if spared[k] <= cost:
        return [part]
    return _split(part[:k], frames, cost) + _split(part[k:], frames, cost)
