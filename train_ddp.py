"""Train the relational network on pairs, or a backbone by classification, on any number of devices.

python train_ddp.py --config configs/quickstart.yaml
torchrun --nproc_per_node=8 train_ddp.py --config configs/imagenet.yaml --out runs/imagenet

Exits with 0 when all steps are done, 2 after a mistake in the command, the data or a checkpoint,
and 1 when training fails. After SIGTERM or SIGUSR1 it finishes the step, saves, and exits with 75:
the same command then continues.
"""

import os
import sys
from collections.abc import Sequence

from runtime.config import load_config
from runtime.distributed import process_group
from runtime.errors import CheckpointError, ConfigError, TrainingError
from sharding.errors import PackError
from training.config import TrainConfig
from training.run import train


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        config = load_config(
            TrainConfig, arguments, prog="train_ddp.py", description=(__doc__ or "").strip()
        )
        with process_group(config.input.device) as process:
            return train(config, process)
    except (PackError, ConfigError, CheckpointError) as error:
        _print(error)
        return 2
    except TrainingError as error:
        _print(error)
        return 1


def _print(error: Exception) -> None:
    rank = os.environ.get("RANK", "0")
    print(f"error: {error}" if rank == "0" else f"rank {rank}: {error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
