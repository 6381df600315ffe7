"""The frozen encoder's features, computed once in a run."""

import torch
import torch.nn.functional as F


class FeatureCache:
    """Features of utterances in memory, up to a limit.

    The encoder is frozen, so an utterance's features are the same in every
    epoch. They are kept in half precision, and rounded to it the first time
    too, so that training does not depend on whether an utterance was cached.

    Arguments
    ---------
    max_gb : float
        Gigabytes (10^9 bytes) to fill; what does not fit is encoded again
        each time. One hour of speech takes 0.46 GB at Whisper-large's width.

    Example
    -------
    >>> encode = lambda wavs, lens: (wavs[:, ::320, None], lens)
    >>> cache = FeatureCache(max_gb=1)
    >>> features, lens = cache(["a"], torch.ones(1, 640), torch.ones(1), encode)
    >>> len(cache), features.shape
    (1, torch.Size([1, 2, 1]))
    """

    def __init__(self, max_gb=8.0):
        self.max_bytes = int(max_gb * 1e9)
        self.bytes = 0
        self.kept = {}

    def __len__(self):
        return len(self.kept)

    def __call__(self, utterances, wavs, wav_lens, encode):
        """Features of a batch, encoding only what is not kept.

        Arguments
        ---------
        utterances : list of str
            ``[batch]``, the IDs.
        wavs : torch.Tensor
            ``[batch, time]``.
        wav_lens : torch.Tensor
            ``[batch]``, relative lengths.
        encode : callable
            ``(wavs, wav_lens) -> (features, lens)``, the frozen encoder.

        Returns
        -------
        features : torch.Tensor
            ``[batch, frames, dim]`` or ``[batch, layers, frames, dim]``.
        lens : torch.Tensor
            ``[batch]``, relative lengths.
        """
        new = [i for i, name in enumerate(utterances) if name not in self.kept]
        rows = {}
        if new:
            samples = round(float(wav_lens[new].max() * wavs.shape[1]))
            part = wavs[new, :samples]
            lens = wav_lens[new] * wavs.shape[1] / samples
            rows = self._keep([utterances[i] for i in new], *encode(part, lens))
        device = wavs.device
        parts = [
            (rows[name] if name in rows else self.kept[name]).to(device)
            for name in utterances
        ]
        longest = max(part.shape[-2] for part in parts)
        features = torch.stack(
            [F.pad(p, (0, 0, 0, longest - p.shape[-2])) for p in parts]
        )
        lens = wav_lens.new_tensor([p.shape[-2] / longest for p in parts])
        return features.float(), lens

    def _keep(self, utterances, features, lens):
        """Each utterance's own frames, kept where there is room."""
        rows = {}
        for name, row, length in zip(utterances, features, lens, strict=True):
            frames = round(float(length) * row.shape[-2])
            # bfloat16 stays: in float16 its large values would be infinite
            half = row.dtype if row.element_size() == 2 else torch.float16
            # clone: a view would keep the whole batch alive
            row = row[..., :frames, :].to(half).clone()
            rows[name] = row
            if self.bytes + row.nbytes <= self.max_bytes:
                self.kept[name] = row.cpu()
                self.bytes += row.nbytes
        return rows
