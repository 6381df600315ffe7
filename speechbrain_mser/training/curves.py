"""Curves for TensorBoard: over epochs, and within them."""

from speechbrain.utils.distributed import main_process_only
from speechbrain.utils.train_logger import TensorboardLogger


class Curves(TensorboardLogger):
    """SpeechBrain's TensorBoard logger, with curves over steps too.

    A training that goes on draws its epochs where they belong; the parent
    counts from 1 again.

    Arguments
    ---------
    save_dir : str
        The folder for TensorBoard.

    Example
    -------
    >>> curves = Curves(getfixture("tmp_path"))
    >>> curves.log_step(50, {"loss": 1.5, "lr": 1e-3})
    >>> curves.log_stats({"epoch": 1, "lr": 1e-3}, {"loss": 1.4})
    """

    @main_process_only
    def log_step(self, step, values):
        """Draw what the last steps were.

        Arguments
        ---------
        step : int
            Optimiser steps so far.
        values : dict
            Name to number; the curve is called ``<name>/step``.
        """
        for name, value in values.items():
            self.writer.add_scalar(f"{name}/step", value, step)

    @main_process_only
    def log_stats(
        self,
        stats_meta,
        train_stats=None,
        valid_stats=None,
        test_stats=None,
        verbose=False,
    ):
        """Draw an epoch, as the parent does.

        Arguments
        ---------
        stats_meta : dict
            "epoch" among others.
        train_stats, valid_stats, test_stats : dict, optional
            Name to number.
        verbose : bool
            Of no effect here.
        """
        del verbose
        epoch = stats_meta["epoch"]
        drawn = {
            name: value for name, value in stats_meta.items() if name != "epoch"
        }
        for part, stats in (
            ("train", train_stats),
            ("valid", valid_stats),
            ("test", test_stats),
        ):
            for name, value in (stats or {}).items():
                drawn[f"{name}/{part}"] = value
        for name, value in drawn.items():
            self.writer.add_scalar(name, value, epoch)
