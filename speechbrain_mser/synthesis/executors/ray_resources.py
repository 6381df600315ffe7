"""What workers ask of a Ray cluster, and whether it has that."""

from speechbrain_mser.errors import InputError

# Ray's smallest share of a CPU or GPU
_SHARE = 1e-4
# Hosts that a message names
_SHOWN = 8


def check_share(setting, value):
    """Refuse what is neither a part of a CPU or GPU nor a number of them."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not value >= _SHARE or (value > 1 and value % 1):
        raise InputError(
            f"{setting} is {value!r}, expected what a worker takes: a part of "
            "one such as 0.5, or a whole number"
        )


def check_room(nodes, n_workers, cpus, gpus):
    """What workers ask for, in words; refuse more than ``ray.nodes()`` have."""
    asked = (
        f"{n_workers} workers with {cpus:g} CPU and {gpus:g} GPU each are "
        "asked for"
    )
    room = sum(_room(node["Resources"], cpus, gpus) for node in nodes)
    if room < n_workers:
        raise InputError(
            f"{asked}, and there is room for {room}: {in_words(nodes)}; set a "
            "smaller n_workers, or less for each (ray_cpus and ray_gpus may "
            "be 0.5), or start more nodes"
        )
    return asked


def _room(resources, cpus, gpus):
    """How many workers fit on a host.

    Example
    -------
    >>> _room({"CPU": 8.0, "GPU": 2.0}, 1, 0.4)
    4
    """
    fit = _times(resources.get("CPU", 0), cpus)
    if gpus:
        # A share is of one GPU, while CPUs are one heap
        whole = int(resources.get("GPU", 0))
        each = whole // int(gpus) if gpus > 1 else whole * _times(1, gpus)
        fit = min(fit, each)
    return fit


def _times(amount, share):
    return round(amount / _SHARE) // round(share / _SHARE)


def in_words(nodes):
    """What hosts have; ``nodes`` as for `check_room`."""
    hosts = [
        f"{node['NodeManagerHostname']} has "
        f"{node['Resources'].get('CPU', 0):g} CPU and "
        f"{node['Resources'].get('GPU', 0):g} GPU"
        for node in nodes
    ]
    more = [f"and {len(hosts) - _SHOWN} more hosts"] * (len(hosts) > _SHOWN)
    return ", ".join([*hosts[:_SHOWN], *more]) or "no host"
