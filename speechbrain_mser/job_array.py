"""A job array's parts of a list of work, which need not know of one another."""

import re

from speechbrain_mser.errors import InputError


def take_part(items, part, setting):
    """The items of one of a job array's parts.

    Arguments
    ---------
    items : list or pandas.DataFrame
        All of them.
    part : str
        ``3/16``: the third of sixteen.
    setting : str
        What the user calls it, for the message.

    Returns
    -------
    list or pandas.DataFrame
        Every sixteenth, so that all parts have of everything.

    Raises
    ------
    InputError
        That is no part.

    Example
    -------
    >>> take_part(["a", "b", "c", "d", "e"], "2/3", "--part")
    ['b', 'e']
    """
    found = re.fullmatch(r"([0-9]+)/([0-9]+)", str(part))
    number, count = map(int, found.groups()) if found else (0, 0)
    if not 1 <= number <= count:
        raise InputError(
            f"{setting} is {part!r}, expected for example 3/16: the third of "
            "sixteen parts"
        )
    return items[number - 1 :: count]
