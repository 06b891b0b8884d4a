"""A trace of a few training steps by PyTorch's profiler."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch.profiler import ProfilerActivity, profile, schedule

from runtime.distributed import Process
from runtime.errors import ConfigError
from training.config import TrainConfig
from training.run_files import LogError, writing

WARMUP = 3  # steps before the traced ones, which compile, allocate and start the profiler
_ROWS = 40  # of the table


def check_profiled(config: TrainConfig, start: int) -> None:
    """Raise ConfigError unless the steps from ``start`` on suffice for the profile."""
    wanted, left = config.profile, config.train.iterations - start
    if wanted and wanted + WARMUP > left:
        raise ConfigError(
            f"profile {wanted} needs {wanted + WARMUP} steps, of which the first {WARMUP} are not "
            f"traced, and {left} are left; raise train.iterations or lower profile"
        )


@contextmanager
def profiled_steps(
    config: TrainConfig, process: Process, start: int, say: Callable[[str], None]
) -> Iterator[Callable[[], None]]:
    """Trace ``config.profile`` steps on the first process, after ``WARMUP`` others, into
    ``profile/`` in the run's folder; gives a function to call after each step.

    Where the files cannot be written, ``say`` is told and training goes on.
    """
    if not (config.profile and process.is_first):
        yield lambda: None
        return
    on_gpu = process.device.type == "cuda"
    files = config.out / "profile" / f"step-{start + WARMUP + 1:08d}"

    def write(profiler: profile) -> None:
        try:
            _write(profiler, files, "self_cuda_time_total" if on_gpu else "self_cpu_time_total")
            say(f"wrote the profile {files}.trace.json.gz and {files.name}.operators.txt")
        except LogError as error:
            say(str(error))

    with profile(
        activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])],
        schedule=schedule(wait=WARMUP - 1, warmup=1, active=config.profile, repeat=1),
        on_trace_ready=write,
    ) as profiler:
        yield profiler.step


def _write(profiler: profile, files: Path, sort_by: str) -> None:
    with writing(files.parent):
        files.parent.mkdir(exist_ok=True)
    trace, table = (
        files.with_name(files.name + end) for end in (".trace.json.gz", ".operators.txt")
    )
    with writing(trace):
        profiler.export_chrome_trace(str(trace))
    with writing(table):
        operators = profiler.key_averages()
        table.write_text(
            operators.table(sort_by=sort_by, row_limit=_ROWS, max_name_column_width=80)
        )
