"""The command ``mser``: what the library does, from a shell.

A file for each subcommand, with its arguments and a ``run``; what takes
seconds to import (torch) is imported by those that need it, so that
``mser --help`` is there at once.
"""

# Whatever ``run`` returns, or an error ends with; docs/using.md.
DONE, UNUSABLE, SOME_BAD, INTERRUPTED, NOBODY_READS = 0, 2, 3, 130, 141
