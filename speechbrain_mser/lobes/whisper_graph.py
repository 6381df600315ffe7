"""`WhisperEncoder` as one graph, from a padded batch of signals.

What it does utterance by utterance and window by window, in Python, is done
here for all of them at once, at shapes that follow from the batch's: for
exporters, which record tensors and no loops over data. The numbers are the
same; what lies between the longest utterance that is left and the longest
that came is computed in vain.
"""

import math

import torch
from torch import nn

from speechbrain_mser.lobes.front_end import FRAME, MARGIN, FrontEnd
from speechbrain_mser.lobes.whisper import MEL_PER_FRAME, SAMPLES_PER_FRAME


class WhisperGraph(nn.Module):
    """A Whisper encoder's features, front end and windows included.

    Arguments
    ---------
    encoder : WhisperEncoder
        In float32.

    Example
    -------
    >>> from transformers import WhisperConfig, WhisperModel
    >>> from transformers import WhisperFeatureExtractor
    >>> from speechbrain_mser.lobes.whisper import WhisperEncoder
    >>> folder = getfixture("tmp_path")
    >>> size = dict(d_model=16, encoder_layers=2, encoder_attention_heads=2,
    ...     encoder_ffn_dim=32, decoder_layers=1, decoder_attention_heads=2,
    ...     decoder_ffn_dim=32, vocab_size=64, pad_token_id=0, bos_token_id=1,
    ...     eos_token_id=2, decoder_start_token_id=1)
    >>> WhisperModel(WhisperConfig(**size)).save_pretrained(folder)
    >>> _ = WhisperFeatureExtractor().save_pretrained(folder)
    >>> encoder = WhisperEncoder(folder)
    >>> wavs = torch.randn(2, 32000)
    >>> features, frames = WhisperGraph(encoder)(wavs, torch.tensor([32000, 9000]))
    >>> expected, _ = encoder(wavs, torch.tensor([1.0, 9000 / 32000]))
    >>> torch.allclose(features[:, 0], expected, atol=1e-4), frames.tolist()
    (True, [100, 29])
    """

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder
        self.front_end = encoder.front_end or FrontEnd()
        n_fft = encoder._n_fft
        # Fourier's matrix instead of his transform, which runtimes lack or
        # compute slowly; in float64, as exact as that.
        angle = torch.arange(n_fft)[:, None] * torch.arange(n_fft // 2 + 1)
        angle = angle.double() * (2 * math.pi / n_fft)
        window = encoder._hann.double()[:, None]
        fourier = torch.cat([angle.cos() * window, angle.sin() * window], 1)
        self.register_buffer("_fourier", fourier.to(window.device))

    def forward(self, wavs, lengths):
        """Encode a batch of utterances.

        Arguments
        ---------
        wavs : torch.Tensor
            ``[batch, time]``, 16 kHz mono.
        lengths : torch.Tensor
            ``[batch]``, int64, in samples.

        Returns
        -------
        features : torch.Tensor
            ``[batch, layers, frames, dim]``, zero beyond an utterance's end;
            with ``mean_over_time`` one frame.
        frames : torch.Tensor
            ``[batch]``, int64, how many each utterance has.
        """
        start, lengths, gain = self._hear(wavs, lengths)
        hop, most = SAMPLES_PER_FRAME, self.encoder.max_frames
        longest = (wavs.shape[1] + hop - 1) // hop
        totals = (lengths + hop - 1) // hop  # [batch], frames
        # Windows of equal length that fit the model, as `FrozenEncoder` cuts
        windows = (longest + most - 1) // most
        number = (totals + most - 1) // most
        size = (totals + number - 1) // number
        first = torch.arange(windows) * size[:, None]  # [batch, windows]
        frames = torch.minimum(totals[:, None] - first, size[:, None])
        samples = torch.minimum(
            lengths[:, None] - first * hop, frames * hop
        ).clamp(min=0)
        # A window that an utterance has not is computed as one of one frame.
        frames = frames.clamp(min=1).flatten()
        length = torch.sym_min(longest, most)
        if self.encoder.pad_to_30s:
            length = self.encoder.model.config.max_source_positions
        pieces = self._frames_of(
            wavs, start[:, None] + first * hop, samples, length
        )
        mel, mask = self._log_mel(pieces * gain[:, None, None], frames)
        # Where in the windows each frame of an utterance is
        frame = torch.arange(longest)
        window = torch.minimum(frame // size[:, None], number[:, None] - 1)
        place = frame - window * size[:, None]
        place = (window * length + place.clamp(max=length - 1))[..., None]
        inside = (frame < totals[:, None])[..., None]  # [batch, frames, 1]
        states = dict(self.encoder.states(mel, mask))
        features = []
        for wanted in self.encoder.layers:
            hidden = states[wanted]
            hidden = hidden.reshape(wavs.shape[0], -1, hidden.shape[-1])
            index = place.expand(-1, -1, hidden.shape[-1])
            features.append(hidden.gather(1, index) * inside)
        features = torch.stack(features, dim=1)
        if self.encoder.mean_over_time:
            sums = features.sum(2, keepdim=True)
            features = sums / totals[:, None, None, None]
            totals = torch.ones_like(totals)
        return features, totals

    def _hear(self, wavs, lengths):
        """What a `FrontEnd` makes of the signals.

        Returns
        -------
        start, length : torch.Tensor
            ``[batch]``, int64: which samples are heard.
        gain : torch.Tensor
            ``[batch]``: how loud.
        """
        ends = self.front_end
        gain = torch.ones_like(lengths, dtype=wavs.dtype)
        if ends.trim_silence is None and ends.speech_level is None:
            return torch.zeros_like(lengths), lengths, gain
        time = torch.arange(wavs.shape[1])
        own = wavs.abs() * (time < lengths[:, None])
        scale = own.amax(1)
        scale = torch.where(scale > 0, scale, 1.0)
        # Frames of 20 ms; of less than that, the utterance is one.
        size = lengths.clamp(max=FRAME)
        number = (wavs.shape[1] + FRAME - 1) // FRAME
        frame = torch.arange(number)[:, None]
        sample = torch.arange(FRAME)
        index = frame * size[:, None, None] + sample  # [batch, frames, FRAME]
        index = index.clamp(max=wavs.shape[1] - 1).flatten(1)
        cut = (wavs.gather(1, index) / scale[:, None]).unflatten(
            1, (number, FRAME)
        )
        within = sample < size[:, None, None]
        count = size[:, None, None]
        mean = (cut * within).sum(2, keepdim=True) / count
        powers = ((cut - mean).square() * within).sum(2) / size[:, None]
        whole = frame[:, 0] < (lengths // size)[:, None]  # [batch, frames]
        powers = powers * whole
        threshold = powers.amax(1, keepdim=True) * ends.threshold()
        speech = (powers > 0) & (powers >= threshold)
        any_speech = speech.any(1)
        start, left = torch.zeros_like(lengths), lengths
        if ends.trim_silence is not None:
            frame = frame[:, 0]
            first = torch.where(speech, frame, number).amin(1)
            last = torch.where(speech, frame, -1).amax(1)
            begin = (first * size - MARGIN).clamp(min=0)
            end = torch.minimum((last + 1) * size + MARGIN, lengths)
            start = torch.where(any_speech, begin, start)
            left = torch.where(any_speech, end - begin, left)
        if ends.speech_level is not None:
            level = (powers * speech).sum(1) / speech.sum(1).clamp(min=1)
            level = torch.where(any_speech, scale * level.sqrt(), 1.0)
            target = 10 ** (ends.speech_level / 20)
            gain = torch.where(any_speech, target / level, gain)
        return start, left, gain

    def _frames_of(self, wavs, first, samples, length):
        """``[batch, windows * mel frames, n_fft]``: what Fourier sees.

        Centred as `torch.stft` centres, the beginning reflected and zeros
        after the end.
        """
        n_fft, hop = self.encoder._n_fft, self.encoder._hop_length
        begin = torch.arange(MEL_PER_FRAME * length)[:, None] * hop
        sample = (begin + torch.arange(n_fft) - n_fft // 2).abs()
        if self.encoder.pad_to_30s:  # the official end is a reflection, too
            last = length * SAMPLES_PER_FRAME - 1
            sample = torch.where(sample > last, 2 * last - sample, sample)
        sample = sample.flatten()
        index = first[..., None] + sample  # [batch, windows, all of them]
        index = index.clamp(min=0, max=wavs.shape[1] - 1).flatten(1)
        inside = (sample < samples[..., None]).flatten(1)
        return (wavs.gather(1, index) * inside).unflatten(1, (-1, n_fft))

    def _log_mel(self, pieces, frames):
        """Whisper's log-mel of all windows, and which of their frames count.

        As `WhisperEncoder`'s.
        """
        n_bins = self._fourier.shape[1] // 2
        spectrum = pieces.double() @ self._fourier
        power = (
            spectrum[..., :n_bins].square() + spectrum[..., n_bins:].square()
        )
        power = (
            power.float()
            .unflatten(0, (-1,))
            .reshape(frames.shape[0], -1, n_bins)
        )
        mel = self.encoder._mel_filters @ power.transpose(1, 2)
        mel = mel.clamp(min=1e-10).log10()  # [windows, mels, mel frames]
        mask = None
        inside = torch.ones_like(frames, dtype=torch.bool)[:, None]
        if not self.encoder.pad_to_30s:
            step = torch.arange(mel.shape[-1])
            inside = step < MEL_PER_FRAME * frames[:, None]
            frame = torch.arange(mel.shape[-1] // MEL_PER_FRAME)
            mask = frame < frames[:, None]
        peak = torch.where(inside[:, None], mel, -math.inf)
        peak = peak.amax(dim=(1, 2), keepdim=True)
        return (torch.maximum(mel, peak - 8.0) + 4.0) / 4.0, mask
