"""Train the relational network on pairs, or a backbone by classification, on any number of devices.

python train_ddp.py --config configs/quickstart.yaml
torchrun --nproc_per_node=8 train_ddp.py --config configs/imagenet.yaml --out runs/imagenet

Exits with 0 when all steps are done, 2 after a mistake in the command, the data or a checkpoint,
and 1 when training fails. After SIGTERM, SIGUSR1 or Ctrl-C it finishes the step, saves, and exits
with 75: rerun the same command to continue.
"""

import sys
from collections.abc import Sequence

from runtime.command import run_command
from runtime.config import load_config
from training.config import TrainConfig


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(lambda: _train(sys.argv[1:] if arguments is None else arguments))


def _train(arguments: Sequence[str]) -> int:
    config = load_config(
        TrainConfig, arguments, prog="train_ddp.py", description=(__doc__ or "").strip()
    )
    # Importing torch takes seconds; help and argument errors do not wait for it.
    from runtime.distributed import process_group
    from training.run import train

    with process_group(config.input.device) as process:
        return train(config, process)


if __name__ == "__main__":
    sys.exit(main())
