"""A training's log: a row for each epoch, whatever interrupted it."""

import re
from pathlib import Path

from speechbrain.utils.distributed import main_process_only
from speechbrain.utils.logger import get_logger
from speechbrain.utils.train_logger import FileTrainLogger

from speechbrain_mser.files.atomic import write_text

logger = get_logger(__name__)

_EPOCH = re.compile(r"epoch: (\d+)\b")


class EpochLog(FileTrainLogger):
    """SpeechBrain's `FileTrainLogger`, with each epoch once and whole.

    A training that is killed between an epoch's row and its checkpoint does
    the epoch again: the new row takes the old one's place, and that of rows
    of later epochs.

    Takes the parent's arguments.

    Example
    -------
    >>> path = getfixture("tmp_path") / "log.txt"
    >>> log = EpochLog(path)
    >>> for epoch in (1, 2, 3, 2):
    ...     log.log_stats({"epoch": epoch}, {"loss": 0.5 / epoch})
    >>> print(path.read_text(), end="")
    epoch: 1 - train loss: 5.00e-01
    epoch: 2 - train loss: 2.50e-01
    """

    @main_process_only
    def log_stats(
        self,
        stats_meta,
        train_stats=None,
        valid_stats=None,
        test_stats=None,
        verbose=True,
    ):
        """Write a row, as the parent does; ``stats_meta`` has the epoch."""
        row = self._stats_to_string(stats_meta)
        for name, stats in (
            ("train", train_stats),
            ("valid", valid_stats),
            ("test", test_stats),
        ):
            if stats is not None:
                row += " - " + self._stats_to_string(stats, name)
        rows = [*self._rows_before(stats_meta["epoch"]), row]
        write_text(self.save_file, "\n".join(rows) + "\n")
        if verbose:
            logger.info(row)

    def _rows_before(self, epoch):
        """What is there already, but for later epochs and half a row."""
        path = Path(self.save_file)
        if not path.exists():
            return []
        text = path.read_text(encoding="utf-8", errors="replace")
        *rows, _half = text.split("\n")
        epochs = {row: _EPOCH.match(row) for row in rows}
        return [
            row
            for row in rows
            if epochs[row] is None or int(epochs[row][1]) < epoch
        ]
