"""Check a GPU node: are its images right, and how fast is it?

    python -m benchmarks.gpu --out FOLDER [--minutes 8]

Draws its own images and needs no data. Prints one table; FOLDER/gpu.json has the same after each
row, so that an interrupted run keeps what it has, and FOLDER/gpu.log what the parts printed. Each
part has a share of the time and stops measuring when it is used up; compiling and starting come on
top. `--device cpu` runs the same parts small, to try the script itself.

Exit status: 0, 1 where a check or a part failed, 2 without a GPU, 130 after Ctrl-C.
"""

import argparse
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path

from benchmarks.gpu import isolation
from benchmarks.gpu.isolation import Part, PartError
from benchmarks.gpu.node import CPU_SIZE, GPU_SIZE, Node
from benchmarks.gpu.report import Report
from runtime.command import INTERRUPTED, Parser, run_command
from runtime.errors import ConfigError, first_line

PARTS = (
    Part("versions", "benchmarks.gpu.machine.versions", 1),
    Part("pixels", "benchmarks.gpu.correctness.pixels", 3),
    Part("packs", "benchmarks.gpu.packs.draw_packs", 5),
    Part("stream order", "benchmarks.gpu.correctness.stream_order", 8),
    Part("damage", "benchmarks.gpu.correctness.damage", 4),
    Part("training", "benchmarks.gpu.training.steps", 35),
    Part("groups", "benchmarks.gpu.groups.steps", 10),
    Part("input", "benchmarks.gpu.input.pairs", 8),
    Part("scoring", "benchmarks.gpu.scoring.relations", 8),
    Part("decode", "benchmarks.gpu.input.decode", 15),
    Part("target", "benchmarks.gpu.scoring.target", 8),
    Part("gpu tests", "benchmarks.gpu.machine.gpu_tests", 10),
)


def main(argv: list[str] | None = None) -> int:
    """Run the check and return its exit status."""
    return run_command(lambda: _check(_parser().parse_args(argv)))


def _check(options: argparse.Namespace) -> int:
    if options.device == "gpu":
        _require_gpu()
    size = GPU_SIZE if options.device == "gpu" else CPU_SIZE
    log = options.out / "gpu.log"
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
    except OSError as error:
        raise ConfigError(
            f"cannot write to {options.out}: {error.strerror}; choose a different --out"
        ) from error
    started = time.strftime("%Y-%m-%d %H:%M:%S%z")
    report = Report(
        options.out / "gpu.json",
        {"device": options.device, "minutes": options.minutes, "started": started},
    )
    with tempfile.TemporaryDirectory() as folder:
        try:
            isolation.preload(PARTS)
            _run_parts(Node(options.device, Path(folder), size), 60 * options.minutes, report, log)
        except KeyboardInterrupt:
            report.finish("interrupted")
            print(
                f"interrupted; {report.path} keeps the {report.num_finished} finished parts",
                file=sys.stderr,
            )
            return INTERRUPTED
    report.finish("complete")
    return 0 if report.passed else 1


def _run_parts(node: Node, seconds: float, report: Report, log: Path) -> None:
    end = time.monotonic() + seconds
    for number, part in enumerate(PARTS):
        left = max(0.0, end - time.monotonic())
        share = part.share / sum(later.share for later in PARTS[number:])
        report.begin(part.name)
        try:
            for row in isolation.run(part, node, left * share, log):
                report.add(part.name, row)
            report.end(part.name)
        except PartError as error:
            report.fail(part.name, str(error), error.details)


def _require_gpu() -> None:
    import torch

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            return
    why = f" ({first_line(found[0].message)})" if found else ""  # type: ignore[arg-type]
    raise ConfigError(
        f"torch {torch.__version__} sees no GPU on this machine{why}; run this on a GPU node, "
        "or try it small with --device cpu"
    )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for gpu.json and gpu.log, which it replaces"
    )
    parser.add_argument("--minutes", type=_minutes, default=8.0, help="for all parts (default 8)")
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    return parser


def _minutes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 24 * 60:
        raise argparse.ArgumentTypeError(f"invalid number of minutes {text!r}; use e.g. 8 or 0.5")
    return value


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a time limit, as a Ctrl-C
    sys.exit(main())
