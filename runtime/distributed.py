"""The processes of one run: their group, the wrapped network, and what they agree on."""

import os
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from runtime.device import DeviceName, resolve_device
from runtime.errors import ConfigError, first_line

_TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True)
class Process:
    """This process among those of the run.

    Attributes:
        rank: number among all processes.
        local_rank: number among those of this machine, which is also its GPU's.
        world_size: how many processes there are.
        device: where its network lives.
    """

    rank: int
    local_rank: int
    world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Replace ``tensor`` by its sum over all processes."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def minimum(self, tensor: Tensor) -> Tensor:
        """Replace ``tensor`` by its minimum over all processes."""
        if self.world_size > 1:
            dist.all_reduce(tensor, op=dist.ReduceOp.MIN)
        return tensor

    def wait_for_all(self) -> None:
        if self.world_size > 1:
            dist.barrier()


@contextmanager
def process_group(device: DeviceName) -> Iterator[Process]:
    """Join the processes that torchrun started, or be the only one where it did not.

    Processes on GPUs talk over NCCL, those on CPUs over gloo.

    Raises:
        ConfigError: a GPU is asked for and this process has none.
    """
    rank, local_rank = int(os.environ.get("RANK", "0")), int(os.environ.get("LOCAL_RANK", "0"))
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    process = Process(rank, local_rank, world_size, resolve_device(device, local_rank))
    on_gpu = process.device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(process.device)
    if world_size == 1:
        yield process
        return
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=_fresh_store(rank, world_size),
        rank=rank,
        world_size=world_size,
        timeout=_TIMEOUT,
        device_id=process.device if on_gpu else None,
    )
    try:
        yield process
    finally:
        dist.destroy_process_group()


def distribute(network: nn.Module, process: Process, *, compiled: bool = False) -> nn.Module:
    """The network, its gradients averaged over the processes, and compiled where that is possible.

    On GPUs, BatchNorm takes its statistics over all processes. PyTorch has no such BatchNorm for
    CPUs: there each process normalises by its own share of the batch, and process 0's running
    statistics are used by all.
    """
    on_gpu = process.device.type == "cuda"
    if on_gpu and process.world_size > 1:
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    if compiled:
        network = _compiled(network, process)
    if process.world_size == 1:
        return network
    return DistributedDataParallel(
        network,
        device_ids=[process.local_rank] if on_gpu else None,
        forward_sync_buffers=not on_gpu,
        gradient_as_bucket_view=True,
    )


class StopSignal:
    """A context in which SIGTERM and SIGUSR1 let all processes stop after the same step.

    Attributes:
        received: the name of the signal that this process got, if any.
    """

    def __init__(self, process: Process) -> None:
        self.received: str | None = None
        self._world_size = process.world_size
        self._group: dist.ProcessGroup | None = None
        if process.world_size > 1:
            self._group = cast(dist.ProcessGroup, dist.new_group(backend="gloo"))
        self._vote = torch.zeros(1)
        self._pending: dist.Work | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        for number in (signal.SIGTERM, signal.SIGUSR1):
            self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def agreed(self) -> bool:
        """Whether any process was signalled before its previous call; the same answer for all.

        The answer lags by one call, so that no process ever waits for the others here.
        """
        if self._group is None:
            return self.received is not None
        stop = False
        if self._pending is not None:
            self._pending.wait()
            stop = bool(self._vote.item())
        self._vote = torch.full((1,), float(self.received is not None))
        self._pending = dist.all_reduce(self._vote, group=self._group, async_op=True)
        return stop

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name


def _fresh_store(rank: int, world_size: int) -> dist.Store:
    """A store that the processes of this attempt share with no earlier one.

    torchrun keeps its store when it restarts processes, and gloo would take the addresses in it of
    those that are gone for ours. So process 0 makes up a name, and tells it to each process that
    introduces itself by a number that it made up.
    """
    store, _, _ = next(rendezvous("env://", rank, world_size, timeout=_TIMEOUT))
    own = uuid.uuid4().hex
    if rank:
        store.set(f"join/{rank}", own)
        name = store.get(f"welcome/{own}").decode()
        store.set(f"joined/{name}/{rank}", "yes")
        return dist.PrefixStore(name, store)
    absent = set(range(1, world_size))
    deadline = time.monotonic() + _TIMEOUT.total_seconds()
    while absent:
        for other in sorted(absent):
            if store.check([f"joined/{own}/{other}"]):
                absent.remove(other)
            elif store.check([f"join/{other}"]):
                store.set(f"welcome/{store.get(f'join/{other}').decode()}", own)
        if time.monotonic() > deadline:
            raise ConfigError(
                f"processes {sorted(absent)} of {world_size} did not start; see their output"
            )
        time.sleep(0.01)
    return dist.PrefixStore(own, store)


def _compiled(network: nn.Module, process: Process) -> nn.Module:
    try:
        torch.compile(lambda x: torch.sin(x) + 1)(torch.ones(8, device=process.device))
    except Exception as error:  # a missing compiler raises what its own tool chain defines
        if process.is_first:
            print(
                "train.compile is ignored: torch.compile fails on this machine "
                f"({first_line(error)})",
                flush=True,
            )
        return network
    torch._dynamo.config.suppress_errors = True  # what it cannot compile runs as it is
    return cast(nn.Module, torch.compile(network))
