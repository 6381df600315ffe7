"""What lives in an actor of Ray, on whatever host."""

import os
import pickle
import socket
import sys
import time
import traceback

from speechbrain_mser.errors import InputError

# Seconds that a shared file system may need to show a file
_SIGHT = 10.0


class Worker:
    """Shards come in, receipts go out.

    Each method answers with a word and what belongs to it: ``there``, the
    host; ``made``, a receipt; ``refused``, why the run must end; ``failed``,
    a traceback.
    """

    def begin(self, path, folder, sign, work):
        """Be where the run was started, and see what it sees.

        Arguments
        ---------
        path : list of str
            Where the run finds its modules.
        folder : str
            Where it was started.
        sign : str
            A file that it has written to ``.partial`` of the output folder.
        work : bytes
            A `ShardWork`, pickled.

        Returns
        -------
        tuple of str
        """
        self.host = socket.gethostname()
        # Scripts and their backends need not be installed
        sys.path[:] = dict.fromkeys([*path, *sys.path])
        try:
            os.chdir(folder)
        except OSError as error:
            return "refused", (
                f"host {self.host} has no folder {folder}, where this was "
                f"started ({error.strerror}); start it from a folder that all "
                "hosts share"
            )
        if not _appears(sign):
            return "refused", (
                f"host {self.host} does not see what is written to "
                f"{os.path.dirname(os.path.dirname(sign))}; the output folder "
                "must be on a file system that all hosts share, at the same "
                "path"
            )
        self.pickled, self.work = work, None
        return "there", self.host

    def make(self, shard):
        """Make a shard.

        Arguments
        ---------
        shard : Shard
            Which one.

        Returns
        -------
        tuple
        """
        try:
            if self.work is None:
                self.work = pickle.loads(self.pickled)
            return "made", self.work.make(shard)
        except InputError as error:
            return "refused", f"host {self.host}: {error}"
        except Exception:
            return "failed", f"host {self.host}: {traceback.format_exc()}"

    def close(self):
        """Close the backend."""
        if self.work is not None:
            self.work.close()


def _appears(path):
    """Whether there is a file; a shared one may need its time."""
    until = time.monotonic() + _SIGHT
    while not os.path.exists(path):
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True
