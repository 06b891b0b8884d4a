"""The number of threads that DALI gets."""

import os


def cores_per_process() -> int:
    """The number of cores this process can use without taking any from its siblings.

    That is the cores of the launcher (torchrun) divided by its processes, but no more than the
    cores this process is bound to: a launcher that binds each process, as
    ``torchrun --numa-binding`` does, has divided them already.
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
    """The cores of one of ``processes`` that is bound to ``own`` of the ``launcher`` cores."""
    return max(1, min(own, launcher // processes))
