"""What runs the shards: this machine's processes, or Ray's actors."""

from speechbrain_mser.errors import InputError


def check_counts(n_workers, max_attempts):
    """Refuse to run nothing.

    Arguments
    ---------
    n_workers : int
        Processes or actors.
    max_attempts : int
        How often a shard is begun.

    Raises
    ------
    InputError
        One of them is below 1.
    """
    if n_workers < 1 or max_attempts < 1:
        raise InputError(
            f"n_workers is {n_workers} and max_attempts is {max_attempts}; "
            "both must be at least 1"
        )
