"""How many threads DALI gets."""

import os


def cores_per_process() -> int:
    """The cores that this process may use without taking them from the others on the machine.

    Those of the launcher (torchrun) divided by its processes, at most the cores to which this
    process is bound: a launcher that has bound each process, as ``torchrun --numa-binding`` does,
    has divided them already.
    """
    own = len(os.sched_getaffinity(0))
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if processes == 1:
        return own
    try:
        launcher = len(os.sched_getaffinity(os.getppid()))
    except OSError:  # the launcher has ended
        launcher = own
    return share_of_cores(own, launcher, processes)


def share_of_cores(own: int, launcher: int, processes: int) -> int:
    """The share of one of the ``processes`` that is bound to ``own`` of the launcher's cores."""
    return max(1, min(own, launcher // processes))
