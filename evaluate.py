"""Score test images of a benchmark as known or unknown, with a network that was trained on pairs.

python evaluate.py --protocol configs/benchmarks/demo.yaml --pack packs/demo --checkpoint RUN
torchrun --nproc_per_node=4 evaluate.py --protocol A.yaml B.yaml --pack P Q --checkpoint RUN
"""

import sys
from collections.abc import Sequence

from evaluation.arguments import parse
from runtime.command import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(lambda: _evaluate(sys.argv[1:] if arguments is None else arguments))


def _evaluate(arguments: Sequence[str]) -> int:
    options = parse(arguments, __doc__ or "")
    # Importing torch takes seconds; help and argument errors do not wait for it.
    from evaluation.run import evaluate
    from runtime.distributed import process_group

    with process_group(options.device) as process:
        evaluate(options, process, ["evaluate.py", *arguments])
    return 0


if __name__ == "__main__":
    sys.exit(main())
