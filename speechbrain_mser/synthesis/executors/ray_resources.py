"""What workers ask of a Ray cluster, and whether it has that."""

from speechbrain_mser.errors import InputError

# Ray's smallest share of a CPU or GPU
_SHARE = 1e-4
# Hosts that a message names
_SHOWN = 8


def check_room(nodes, n_workers, num_cpus, num_gpus):
    """What each worker asks for; refuse more than the cluster has.

    Arguments
    ---------
    nodes : list of dict
        Those that live, as `ray.nodes` gives them.
    n_workers : int
        How many there shall be.
    num_cpus, num_gpus : float
        For each; ``num_gpus`` None is one where there are any.

    Returns
    -------
    dict
        CPU and GPU.

    Raises
    ------
    InputError
        Says what was asked for and what is there.
    """
    if num_gpus is None:
        num_gpus = int(any(node["Resources"].get("GPU") for node in nodes))
    asked = {"CPU": num_cpus, "GPU": num_gpus}
    room = sum(_room(node["Resources"], **asked) for node in nodes)
    if room < n_workers:
        raise InputError(
            f"{in_words(n_workers, asked)} are asked for, and there is room "
            f"for {room}: {shown(nodes)}; give fewer --n_workers, or less to "
            "each (--ray_cpus 0.5 --ray_gpus 0.5), or start more nodes"
        )
    return asked


def check_share(name, value):
    """Refuse what Ray cannot give to a worker.

    Arguments
    ---------
    name : str
        The setting's.
    value : float
        A part of a CPU or GPU, or a number of them.

    Raises
    ------
    InputError
        It is neither.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not value >= _SHARE or (value > 1 and value % 1):
        raise InputError(
            f"{name} is {value!r}, expected what a worker takes: a part of "
            "one such as 0.5, or a whole number"
        )


def _room(resources, CPU, GPU):
    """How many actors fit on a host.

    Example
    -------
    >>> _room({"CPU": 8.0, "GPU": 2.0}, CPU=1, GPU=0.4)
    4
    """
    # A share is of one GPU, while CPUs are one heap
    cpus = round(resources.get("CPU", 0) / _SHARE) // round(CPU / _SHARE)
    if not GPU:
        return cpus
    gpus = int(resources.get("GPU", 0))
    if GPU > 1:
        return min(cpus, gpus // int(GPU))
    return min(cpus, gpus * (round(1 / _SHARE) // round(GPU / _SHARE)))


def in_words(n_workers, asked):
    """What is asked for; arguments as of `check_room` and its result."""
    return (
        f"{n_workers} workers with {asked['CPU']:g} CPU and "
        f"{asked['GPU']:g} GPU each"
    )


def shown(nodes):
    """What hosts have; ``nodes`` as for `check_room`."""
    found = [
        f"{node['NodeManagerHostname']} has "
        f"{node['Resources'].get('CPU', 0):g} CPU and "
        f"{node['Resources'].get('GPU', 0):g} GPU"
        for node in nodes
    ]
    more = [f"and {len(found) - _SHOWN} more hosts"] * (len(found) > _SHOWN)
    return ", ".join([*found[:_SHOWN], *more]) or "no host"
