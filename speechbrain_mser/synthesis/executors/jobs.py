"""Shards that wait to be made, and how often each was begun."""

from collections import deque

from speechbrain_mser.synthesis.shard import Outcome


class Jobs:
    """Hands out shards; what failed comes last, as the rest may be well.

    Arguments
    ---------
    shards : iterable of Shard
        Asked for one by one, one ahead.
    max_attempts : int
        How often a shard is begun.

    Example
    -------
    >>> jobs = Jobs(["a", "b"], max_attempts=2)
    >>> shard, attempts = jobs.next()
    >>> jobs.ended(shard, attempts, None, "it died")
    >>> [jobs.next(), jobs.next()], bool(jobs)
    ([('b', 0), ('a', 1)], False)
    """

    def __init__(self, shards, max_attempts):
        self._fresh = ((shard, 0) for shard in shards)
        self._next = next(self._fresh, None)
        self._again = deque()
        self._max_attempts = max_attempts

    def __bool__(self):
        """Whether any is waiting."""
        return bool(self._next or self._again)

    def next(self):
        """One to begin.

        Returns
        -------
        shard : Shard
            Which one.
        attempts : int
            How often it was begun before.
        """
        if self._next is None:
            return self._again.popleft()
        job, self._next = self._next, next(self._fresh, None)
        return job

    def ended(self, shard, attempts, receipt, error):
        """Take back what failed, if it may be begun again.

        Arguments
        ---------
        shard, attempts
            As `next` gave them.
        receipt : dict or None
            None where it was not made.
        error : str
            Why not.

        Returns
        -------
        Outcome or None
            None where it waits again.
        """
        if receipt is None and attempts + 1 < self._max_attempts:
            self._again.append((shard, attempts + 1))
            return None
        return Outcome(shard.name, receipt, error)
