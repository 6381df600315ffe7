"""A table's utterances in batches, with a frozen encoder's features."""

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from speechbrain_mser.dataio.bad_utterances import BadUtterance
from speechbrain_mser.dataio.batching import collate
from speechbrain_mser.dataio.cached_encoding import REFUSE, encode_batch
from speechbrain_mser.dataio.loader_workers import (
    named_failures,
    worker_context,
)
from speechbrain_mser.dataio.utterances import make_dataset
from speechbrain_mser.errors import InputError
from speechbrain_mser.finite import NO_SCORE


class FeatureReader:
    """Reads and encodes utterances, each once, those of like length together.

    Arguments
    ---------
    encoder : callable
        ``(wavs, wav_lens) -> (features, lens)``.
    store : FeatureStore, optional
        Where its features may be; those that are not there are put there.
    batch_size : int
        Utterances in a batch.
    num_workers : int
        Processes that read them.
    bad_utterances : BadUtterances, optional
        What becomes of those that cannot be used; by default the first one
        ends the run.
    device : str or torch.device
        The encoder's.
    microphones : list
        What utterances are heard through, as for `make_dataset`.

    Example
    -------
    >>> import pandas
    >>> samples = 0.1 * torch.randn(1, 16000)
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> import soundfile
    >>> soundfile.write(path, samples[0].numpy(), 16000)
    >>> table = pandas.DataFrame({"ID": ["a"], "wav": str(path),
    ...     "start": float("nan"), "stop": float("nan"), "duration": 1.0,
    ...     "emotion": "", "corpus": "mine"})
    >>> reader = FeatureReader(lambda wavs, lens: (wavs[:, ::320, None], lens))
    >>> [features.shape for batch, features, lens in reader(table, "mine")]
    [torch.Size([1, 50, 1])]
    """

    def __init__(
        self,
        encoder,
        store=None,
        batch_size=16,
        num_workers=0,
        bad_utterances=REFUSE,
        device="cpu",
        microphones=(None,),
    ):
        self.encoder, self.store = encoder, store
        self.batch_size, self.num_workers = batch_size, num_workers
        self.bad_utterances, self.device = bad_utterances, device
        self.microphones = microphones

    @torch.no_grad()
    def __call__(self, table, name):
        """Go through a table, the shortest first.

        Arguments
        ---------
        table : pandas.DataFrame
            As `dataio.manifest.read_manifest` returns, paths resolved.
        name : str
            What the utterances are, for the progress bar.

        Yields
        ------
        batch : UtteranceBatch
            Those that could be used; not empty.
        features : torch.Tensor
            ``[batch, frames, dim]`` or ``[batch, layers, frames, dim]``.
        lens : torch.Tensor
            ``[batch]``, relative lengths.
        """
        # Neighbours of like length: little is computed for padding.
        table = table.sort_values(["duration", "ID"])
        loader = DataLoader(
            make_dataset(table, self.store, self.microphones),
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            collate_fn=collate,
            multiprocessing_context=worker_context(self.num_workers),
        )
        with named_failures():
            for batch in tqdm(loader, name):
                if not self.bad_utterances.of_batch(batch):
                    continue
                encoded = encode_batch(
                    batch.to(self.device),
                    self.encoder,
                    self.store,
                    self.bad_utterances,
                )
                if len(batch):
                    yield batch, *encoded

    def compute(self, function, table, name):
        """What a function makes of each utterance, in the table's order.

        Arguments
        ---------
        function : callable
            ``(features, lens) -> [batch, ...]``, as for `compute_of`.
        table, name
            As for `compute_of`.

        Returns
        -------
        table : pandas.DataFrame
            Those that could be used.
        rows : torch.Tensor
            ``[n, ...]``, on the CPU.
        """
        return self.compute_of(
            lambda _, *encoded: function(*encoded), table, name
        )

    @torch.no_grad()
    def compute_of(self, function, table, name):
        """The same for a function that has to know whose features they are.

        Arguments
        ---------
        function : callable
            ``(IDs, features, lens) -> [batch, ...]``; a row with NaN is no
            answer, and its utterance a bad one.
        table : pandas.DataFrame
            The utterances.
        name : str
            What they are.

        Returns
        -------
        table : pandas.DataFrame
            Those that could be used.
        rows : torch.Tensor
            ``[n, ...]``, on the CPU.

        Raises
        ------
        InputError
            There is none.
        """
        rows = {}
        for batch, *encoded in self(table, name):
            results = function(batch.id, *encoded).cpu()
            for utterance, row in zip(batch.id, results, strict=True):
                if row.isnan().any():
                    self.bad_utterances(BadUtterance(utterance, NO_SCORE))
                else:
                    rows[utterance] = row
        if not rows:
            raise InputError(
                f"{name}: no utterance could be read and recognised"
            )
        table = table[table.ID.isin(rows)]
        return table, torch.stack([rows[utterance] for utterance in table.ID])
