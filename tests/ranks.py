"""A command of which one rank goes wrong."""

import importlib
import os
import time
from collections.abc import Sequence

import torch.distributed


def main(arguments: Sequence[str]) -> int:
    """Run ``arguments``, a command's module and its arguments, after a piece of Python that comes
    first and is executed on rank 1 alone; it may change ``arguments``."""
    sabotage, command, *arguments = arguments
    # NCCL's may wait for as long as this where one rank alone arrives there
    torch.distributed.destroy_process_group = lambda: time.sleep(600)
    if os.environ["RANK"] == "1":
        exec(sabotage)
    return importlib.import_module(command).main(arguments)
