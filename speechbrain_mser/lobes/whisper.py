"""Whisper's encoder: frozen, at the utterance's true length."""

import re

import torch
import torch.nn.functional as F
from speechbrain.integrations.huggingface.whisper import Whisper

from speechbrain_mser.errors import InputError
from speechbrain_mser.files.fingerprints import weights_digest
from speechbrain_mser.lobes.hub import find_model, load_model, require_dtype
from speechbrain_mser.lobes.no_remote_code import DataOnly
from speechbrain_mser.lobes.weight_files import model_digest

SAMPLE_RATE = 16000
# Mel frames are 10 ms, encoder frames (after the strided convolution) 20 ms.
SAMPLES_PER_FRAME = 320
MEL_PER_FRAME = 2
# What a further pass through the encoder costs besides its frames, as a number
# of frames that could be encoded meanwhile: little on a CPU (measured); on a
# GPU the launch of a thousand kernels (estimated).
FRAMES_PER_PASS = {"cpu": 50}
FRAMES_PER_PASS_ELSEWHERE = 2000
# To be raised when the same audio and weights give other features than before.
FEATURES_VERSION = 1


class WhisperEncoder(DataOnly, Whisper):
    """The encoder of a Whisper model, as a frozen feature extractor.

    SpeechBrain's lobe always encodes 30 s, clamps the log-mel with the
    batch's maximum (so an utterance's features depend on its batch-mates) and
    stays in train mode when frozen. Here an utterance is encoded at its true
    length, alone or in any batch alike, and frozen means frozen.

    Utterances longer than Whisper's 30 s are encoded in windows of equal
    length, without overlap, and the windows' features joined. Where a batch's
    lengths differ much, those of similar length are encoded together.

    Arguments
    ---------
    source : str
        Hub name or folder.
    save_path : str
        Where files from the hub are kept.
    layers : int, list of int or "all"
        Which hidden states to return, counted as in transformers: 0 is the
        convolutions' output, n the output of layer n, the last one (-1) after
        the final norm. An int gives one layer, a list or "all" several.
    pad_to_30s : bool
        Encode 30 s of audio and silence, as Whisper was trained: bit for bit
        the official encoder, cut to the utterance, at many times the cost.
    mean_over_time : bool
        Return one frame per utterance, the mean over its own: a thousandth of
        the features to store, for connectors that average anyway.
    freeze : bool
        Keep the weights; evaluation mode and no gradients, whatever a Brain
        says.
    dtype : str
        Dtype of the weights ("float32", "float16", "bfloat16"), whatever the
        checkpoint is stored in.

    Example
    -------
    >>> from transformers import WhisperConfig, WhisperModel
    >>> from transformers import WhisperFeatureExtractor
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> size = dict(d_model=16, encoder_layers=2, encoder_attention_heads=2,
    ...     encoder_ffn_dim=32, decoder_layers=1, decoder_attention_heads=2,
    ...     decoder_ffn_dim=32, vocab_size=64, pad_token_id=0, bos_token_id=1,
    ...     eos_token_id=2, decoder_start_token_id=1)
    >>> WhisperModel(WhisperConfig(**size)).save_pretrained(folder)
    >>> _ = WhisperFeatureExtractor().save_pretrained(folder)
    >>> whisper = WhisperEncoder(folder)
    >>> wavs, wav_lens = torch.randn(2, 32000), torch.tensor([1.0, 0.5])
    >>> features, lens = whisper(wavs, wav_lens)
    >>> features.shape, lens  # 2 s at 50 Hz
    (torch.Size([2, 100, 16]), tensor([1.0000, 0.5000]))
    """

    def __init__(
        self,
        source,
        save_path="pretrained_models",
        layers=-1,
        pad_to_30s=False,
        mean_over_time=False,
        freeze=True,
        dtype="float32",
    ):
        self.source = source = str(source)
        folder = find_model(
            source,
            save_path,
            "the Whisper encoder",
            "whisper_hub",
            ("config.json", "preprocessor_config.json"),
        )
        require_dtype(dtype)
        # Before the parent's constructor, which loads the model.
        self.dtype_name = dtype
        self.layers = layers
        super().__init__(
            str(folder), save_path, encoder_only=True, freeze=freeze
        )
        config = self.model.config
        self.hidden_size = config.d_model
        self.pad_to_30s = pad_to_30s
        self.mean_over_time = mean_over_time
        self.max_frames = config.max_source_positions
        # A model with fewer positions (a small test model) has a shorter
        # window than Whisper's 30 s.
        self.window = self.max_frames * SAMPLES_PER_FRAME
        self.several = not isinstance(layers, int)
        self.n_output_layers = len(self.layers)
        self.register_buffer(
            "_hann", torch.hann_window(self._n_fft), persistent=False
        )

    def _from_pretrained(self, source, **kwargs):
        # The parent leaves the dtype to the checkpoint, and the hub's
        # whisper-large-v3 is stored in float16. A folder may hold the encoder
        # alone.
        del kwargs  # where the parent would look for it
        self.model, unused = load_model(
            self.auto_class,
            source,
            "the Whisper encoder (whisper_hub)",
            used=_encoders_name,
            config=self.config,
            dtype=self.dtype_name,
        )
        self.digest = model_digest(
            source,
            lambda name: None if name in unused else _encoders_name(name),
        )

    def override_config(self, config):
        """Refuse another model or a wrong layer before anything is loaded."""
        if config.model_type != "whisper":
            raise InputError(
                f"the encoder must be a Whisper; {self.source} is a "
                f"{config.model_type} (whisper_hub)"
            )
        self.layers = _layer_numbers(self.layers, config.encoder_layers)
        return config

    def freeze_model(self, model):
        """Freeze: no gradients, and evaluation mode unlike the parent's."""
        model.eval()
        model.requires_grad_(False)

    def train(self, mode=True):
        """Stay in evaluation mode when frozen, whatever the Brain says."""
        # nn.Module's constructor does not call train(), but a parent's might
        # before the attribute is there.
        return super().train(mode and not getattr(self, "freeze", False))

    def describe(self):
        """What a connector's checkpoint remembers: name, width, weights.

        The weights' digest is that of the encoder's in the model's files,
        which may hold a decoder or not; see `model_digest`.
        """
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
            # The mel filters are a buffer among them.
            "weights": weights_digest(self),
            "stft": [self._n_fft, self._hop_length],
            "heads": self.model.config.encoder_attention_heads,
            "activation": self.model.config.activation_function,
            "version": FEATURES_VERSION,
            "dtype": self.dtype_name,
            "layers": self.layers if self.several else self.layers[0],
            "pad_to_30s": self.pad_to_30s,
        }
        # Only where it is asked for: what was stored before stays valid.
        if self.mean_over_time:
            described["mean_over_time"] = True
        return described

    def forward(self, wavs, wav_lens=None):
        """Encode a batch of utterances.

        Arguments
        ---------
        wavs : torch.Tensor
            ``[batch, time]``, 16 kHz mono.
        wav_lens : torch.Tensor, optional
            ``[batch]``, relative lengths; by default all are whole.

        Returns
        -------
        features : torch.Tensor
            ``[batch, frames, dim]`` at 50 Hz, or ``[batch, layers, frames,
            dim]`` for several layers; zero beyond an utterance's length. With
            ``mean_over_time`` one frame, in float32.
        lens : torch.Tensor
            ``[batch]``, relative lengths in frames.
        """
        if wav_lens is None:
            wav_lens = torch.ones(len(wavs), device=wavs.device)
        with torch.set_grad_enabled(
            not self.freeze and torch.is_grad_enabled()
        ):
            return self._encode(wavs, wav_lens)

    def _encode(self, wavs, wav_lens):
        lengths = (wav_lens * wavs.shape[1]).round().long().tolist()
        pieces, counts = _cut(wavs, lengths, self.window)
        frames = [-(-len(piece) // SAMPLES_PER_FRAME) for piece in pieces]
        places, totals = _places(frames, counts)
        longest = max(totals)
        weight = self.model.encoder.conv1.weight
        features = weight.new_zeros(
            len(wavs), self.n_output_layers, longest, self.hidden_size
        )
        for part in self._passes(frames, len(wavs)):
            states = self._hidden_states(
                [pieces[i] for i in part], [frames[i] for i in part]
            )
            for number, hidden in enumerate(states):
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

    def _passes(self, frames, most):
        """Which pieces go through the encoder together: at most so many."""
        if self.pad_to_30s:
            frames = [self.max_frames] * len(frames)
        order = sorted(range(len(frames)), key=lambda i: -frames[i])
        device = self.model.encoder.conv1.weight.device.type
        cost = FRAMES_PER_PASS.get(device, FRAMES_PER_PASS_ELSEWHERE)
        return [
            part
            for first in range(0, len(order), most)
            for part in _split(order[first : first + most], frames, cost)
        ]

    def _hidden_states(self, pieces, frames):
        """Yield ``[batch, frames, dim]`` of pieces that fit the window.

        From layer 0 to the last one that is asked for; what stands beyond a
        piece's frames means nothing.
        """
        longest = self.max_frames if self.pad_to_30s else max(frames)
        # Half precision cannot hold the power of a quiet sound.
        with torch.autocast(pieces[0].device.type, enabled=False):
            mel = self._log_mel(pieces, frames, longest)
        encoder = self.model.encoder
        mel = mel.to(encoder.conv1.weight.dtype)
        # What lies beyond an utterance must look as its end does when it is
        # alone: the convolutions' zero padding. (The second one, of stride 2,
        # does not reach beyond.) The official encoder sees silence there.
        mask = None
        if not self.pad_to_30s and min(frames) < longest:
            lengths = torch.tensor(frames, device=mel.device)
            mask = torch.arange(longest, device=mel.device) < lengths[:, None]
        hidden = F.gelu(encoder.conv1(_silence(mel, mask)))
        hidden = F.gelu(encoder.conv2(hidden)).transpose(1, 2)
        hidden = hidden + encoder.embed_positions.weight[:longest]
        attention_mask = None if mask is None else mask[:, None, None, :]
        for number in range(max(self.layers) + 1):
            if number > 0:
                hidden = encoder.layers[number - 1](hidden, attention_mask)
            if number == len(encoder.layers):
                hidden = encoder.layer_norm(hidden)
            yield hidden

    def _log_mel(self, pieces, frames, longest):
        """``[batch, mels, 2 * longest]``: Whisper's log-mel, per utterance.

        Zeros follow every piece, as in Whisper's own 30 s, so that its last
        windows do not depend on what it is padded to; the floor of 8 (80 dB)
        below the maximum is each utterance's own.
        """
        size = longest * SAMPLES_PER_FRAME
        if not self.pad_to_30s:
            # The last window reaches half its length beyond; official 30 s
            # audio ends with its reflection there instead.
            size += self._n_fft
        wavs = self._hann.new_zeros(len(pieces), size)
        for wav, piece in zip(wavs, pieces, strict=True):
            wav[: len(piece)] = piece
        spectrum = torch.stft(
            wavs,
            self._n_fft,
            self._hop_length,
            window=self._hann,
            return_complex=True,
        )
        power = spectrum[..., : MEL_PER_FRAME * longest].abs().square()
        mel = (self._mel_filters @ power).clamp(min=1e-10).log10()
        if self.pad_to_30s:
            peak = mel.amax(dim=(1, 2), keepdim=True)
        else:
            lengths = torch.tensor(frames, device=mel.device)[:, None]
            step = torch.arange(mel.shape[-1], device=mel.device)
            inside = step < MEL_PER_FRAME * lengths  # [batch, mel frames]
            peak = mel.masked_fill(~inside[:, None], float("-inf"))
            peak = peak.amax(dim=(1, 2), keepdim=True)
        return (torch.maximum(mel, peak - 8.0) + 4.0) / 4.0


def _encoders_name(name):
    """A weight's name without what it is a part of; None if not of ours."""
    name = re.sub(r"^(model\.)+", "", name)
    return None if name.startswith(("decoder.", "proj_out.")) else name


def _layer_numbers(layers, n_layers):
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


def _cut(wavs, lengths, window):
    """Utterances cut into equal windows that fit, and windows of each."""
    pieces, counts = [], []
    for wav, length in zip(wavs, lengths, strict=True):
        count = -(-length // window)
        # Whole frames, so that joined windows stay on the 50 Hz grid.
        size = -(-length // count // SAMPLES_PER_FRAME) * SAMPLES_PER_FRAME
        size = max(size, SAMPLES_PER_FRAME)
        pieces += wav[:length].split(min(size, window) if count > 1 else length)
        counts.append(len(pieces) - sum(counts))
    return pieces, counts


def _places(frames, counts):
    """Row and frames of each piece, and frames of each utterance."""
    places, totals = [], []
    for row, count in enumerate(counts):
        total = 0
        for number in frames[len(places) : len(places) + count]:
            places.append((row, slice(total, total + number)))
            total += number
        totals.append(total)
    return places, totals


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


def _silence(mel, mask):
    """Zero ``[batch, mels, time]`` beyond a mask of encoder frames."""
    if mask is None:
        return mel
    mask = mask.repeat_interleave(MEL_PER_FRAME, dim=1)
    return mel * mask[:, None].to(mel.dtype)
