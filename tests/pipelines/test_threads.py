import os
import subprocess
import sys

import pytest

from pipelines.threads import share_of_cores

PRINT = "from pipelines.threads import cores_per_process; print(cores_per_process())"
START = "import subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]], check=True)"


@pytest.mark.parametrize(
    ("own", "launcher", "processes", "share"),
    [
        (96, 96, 8, 12),  # bound to nothing
        (12, 96, 8, 12),  # each bound to cores of its own
        (48, 96, 8, 12),  # each bound to the cores of its socket, with three others
        (2, 96, 8, 2),  # bound to fewer than its share
        (4, 4, 8, 1),
    ],
)
def test_cores_are_divided_once(own, launcher, processes, share):
    assert share_of_cores(own, launcher, processes) == share


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core cannot be shared")
@pytest.mark.parametrize(("bound", "processes"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_a_process_bound_by_its_launcher_keeps_its_cores(bound, processes):
    """The launcher has two cores; the process that it starts is bound to ``bound`` of them."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    bind = f"import os; os.sched_setaffinity(0, {cores[:bound]}); {PRINT}"
    result = subprocess.run(
        [sys.executable, "-c", START, "-c", bind],
        env=os.environ | {"LOCAL_WORLD_SIZE": str(processes)},
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    assert int(result.stdout) == min(bound, 2 // processes)
