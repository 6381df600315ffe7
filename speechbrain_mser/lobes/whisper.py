"""Whisper's encoder: frozen, at the utterance's true length."""

import re

import torch
import torch.nn.functional as F
from transformers import WhisperModel

from speechbrain_mser.errors import InputError
from speechbrain_mser.lobes.encoder import WHAT, FrozenEncoder, find_encoder
from speechbrain_mser.lobes.hub import load_model
from speechbrain_mser.lobes.no_remote_code import explained
from speechbrain_mser.lobes.weight_files import model_digest

# Mel frames are 10 ms, encoder frames (after the strided convolution) 20 ms.
SAMPLES_PER_FRAME = 320
MEL_PER_FRAME = 2


class WhisperEncoder(FrozenEncoder):
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
    layers, mean_over_time, dtype
        As for `FrozenEncoder`; layer 0 is the convolutions' output.
    window : int
        Seconds that are encoded at a time; Whisper has positions for 30.
    pad_to_30s : bool
        Encode 30 s of audio and silence, as Whisper was trained: bit for bit
        the official encoder, cut to the utterance, at many times the cost.

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
    >>> encoder = WhisperEncoder(folder)
    >>> wavs, wav_lens = torch.randn(2, 32000), torch.tensor([1.0, 0.5])
    >>> features, lens = encoder(wavs, wav_lens)
    >>> features.shape, lens  # 2 s at 50 Hz
    (torch.Size([2, 100, 16]), tensor([1.0000, 0.5000]))
    """

    takes_multiple = True

    def __init__(
        self,
        source,
        save_path="pretrained_models",
        layers=-1,
        window=30,
        pad_to_30s=False,
        mean_over_time=False,
        dtype="float32",
    ):
        folder, config, extractor = find_encoder(source, save_path)
        if config.model_type != "whisper":
            raise InputError(
                f"{WHAT} must be a Whisper; {source} is a {config.model_type}"
            )
        super().__init__(
            source,
            hidden_size=config.d_model,
            n_layers=config.encoder_layers,
            layers=layers,
            samples_per_frame=SAMPLES_PER_FRAME,
            # A frame that was begun is padded with silence.
            samples_of_frame=1,
            window=window,
            mean_over_time=mean_over_time,
            dtype=dtype,
            n_positions=config.max_source_positions,
        )
        self.pad_to_30s = pad_to_30s
        with explained(folder, WHAT):
            self._load_front_end(extractor)
        self.freeze(*self._load_model(folder, config))

    def _load_front_end(self, extractor):
        self._n_fft, self._hop_length = extractor.n_fft, extractor.hop_length
        filters = torch.as_tensor(extractor.mel_filters, dtype=torch.float32)
        self.register_buffer("_mel_filters", filters.T)
        self.register_buffer(
            "_hann", torch.hann_window(self._n_fft), persistent=False
        )

    def _load_model(self, folder, config):
        # Not loaded, and a folder may hold the encoder alone.
        config.decoder_layers = 0
        model, unused = load_model(
            WhisperModel,
            folder,
            WHAT,
            used=_encoders_name,
            config=config,
            dtype=self.dtype_name,
        )
        model.decoder = None
        digest = model_digest(
            folder,
            lambda name: None if name in unused else _encoders_name(name),
        )
        return model, digest

    def settings(self):
        config = self.model.config
        described = {
            "stft": [self._n_fft, self._hop_length],
            "heads": config.encoder_attention_heads,
            "activation": config.activation_function,
            "pad_to_30s": self.pad_to_30s,
        }
        if self.max_frames < config.max_source_positions:
            described["max_frames"] = self.max_frames
        return described

    def _passes(self, frames, most):
        if self.pad_to_30s:
            frames = [self.model.config.max_source_positions] * len(frames)
        return super()._passes(frames, most)

    def hidden_states(self, pieces, frames, multiple=1):
        longest = -(-max(frames) // multiple) * multiple
        longest = min(longest, self.max_frames)
        if self.pad_to_30s:
            longest = self.model.config.max_source_positions
        # Half precision cannot hold the power of a quiet sound.
        with torch.autocast(pieces[0].device.type, enabled=False):
            mel = self._log_mel(pieces, frames, longest)
        # What lies beyond an utterance must look as its end does when it is
        # alone: the convolutions' zero padding. (The second one, of stride 2,
        # does not reach beyond.) The official encoder sees silence there.
        mask = None
        if not self.pad_to_30s and min(frames) < longest:
            lengths = torch.tensor(frames, device=mel.device)
            mask = torch.arange(longest, device=mel.device) < lengths[:, None]
        yield from self.states(mel, mask)

    def states(self, mel, mask):
        """Yield hidden states, from log-mels.

        Arguments
        ---------
        mel : torch.Tensor
            ``[batch, mels, 2 * frames]``.
        mask : torch.Tensor or None
            ``[batch, frames]``, False beyond an utterance; None where all of
            it counts.

        Yields
        ------
        number : int
            Which one; up to the last of ``layers``.
        hidden : torch.Tensor
            ``[batch, frames, dim]``.
        """
        encoder = self.model.encoder
        mel = mel.to(encoder.conv1.weight.dtype)
        hidden = F.gelu(encoder.conv1(_silence(mel, mask)))
        hidden = F.gelu(encoder.conv2(hidden)).transpose(1, 2)
        hidden = hidden + encoder.embed_positions.weight[: hidden.shape[1]]
        attention_mask = None if mask is None else mask[:, None, None, :]
        for number in range(max(self.layers) + 1):
            if number > 0:
                hidden = encoder.layers[number - 1](hidden, attention_mask)
            if number == len(encoder.layers):
                hidden = encoder.layer_norm(hidden)
            yield number, hidden

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


def _silence(mel, mask):
    """Zero ``[batch, mels, time]`` beyond a mask of encoder frames."""
    if mask is None:
        return mel
    mask = mask.repeat_interleave(MEL_PER_FRAME, dim=1)
    return mel * mask[:, None].to(mel.dtype)
