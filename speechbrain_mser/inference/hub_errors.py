"""What the hub's client says, in words that help."""

from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

LOG_IN = (
    "log in (hf auth login), set HF_TOKEN, or pass a token; one that may "
    "write where something is to be pushed"
)
_NO_NETWORK = "there is no network, or HF_HUB_OFFLINE forbids it"
# The first that fits; some are kinds of later ones.
_REASONS = (
    (
        HFValidationError,
        "names on the hub are user/name, of letters, digits, '-', '_' and '.'",
    ),
    (
        GatedRepoError,
        f"its owner wants to be asked: agree on its page, and {LOG_IN}",
    ),
    (
        RevisionNotFoundError,
        "the hub has no such revision of it: no branch, tag or commit",
    ),
    (
        RepositoryNotFoundError,
        f"the hub has none of that name, or it is private: {LOG_IN}",
    ),
    (LocalTokenNotFoundError, f"there is no token: {LOG_IN}"),
    (LocalEntryNotFoundError, _NO_NETWORK),
    (OfflineModeIsEnabled, _NO_NETWORK),
)
_STATUS = {
    401: f"the hub does not know who asks: {LOG_IN}",
    403: f"the hub does not allow it: {LOG_IN}",
}


def hub_reason(error):
    """Why the hub's client could not do what it was to do, and what to do.

    Arguments
    ---------
    error : Exception
        Anything that it raised: its errors are of many kinds, none of them a
        bug here.

    Returns
    -------
    str
        Half a sentence, or several.

    Example
    -------
    >>> hub_reason(OfflineModeIsEnabled("Cannot reach https://..."))
    'there is no network, or HF_HUB_OFFLINE forbids it'
    >>> hub_reason(ValueError("what is this?"))
    'what is this?'
    """
    cause = error.__cause__
    if isinstance(error, LocalEntryNotFoundError) and cause is not None:
        # Nothing is kept, and nothing was to be had.
        return hub_reason(cause)
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return reason
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        answer = f"the hub answered with {status}: {_first_line(error)}"
        return _STATUS.get(status, answer)
    if isinstance(error, HTTPError):  # the HTTP library's own
        return f"the hub cannot be reached: {_first_line(error)}"
    return _first_line(error)


def _first_line(error):
    return (str(error).strip() or type(error).__name__).splitlines()[0]
