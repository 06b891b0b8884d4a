"""The processes of one run: their group, the wrapped network, and what they agree on."""

import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from runtime.command import DeviceName
from runtime.device import resolve_device
from runtime.errors import ConfigError, PeerError, first_line

_TIMEOUT = timedelta(minutes=10)
_POLL_SECONDS = 0.2
_SUCCEEDED, _RUNNING, _FAILED = range(3)  # states of a long action
# What gloo and NCCL say when the process at the other end is gone.
_PEER_IS_GONE = re.compile(
    r"gloo.*(closed by peer|reset by peer|broken pipe|timed out)|(ncclRemoteError)", re.I | re.S
)

T = TypeVar("T")


@dataclass(frozen=True)
class Process:
    """This process among those of the run.

    Attributes:
        rank: its number among all processes.
        local_rank: its number among those of this machine, which is also the number of its GPU.
        world_size: the number of processes.
        device: where its network lives.
    """

    rank: int
    local_rank: int
    world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def sum_(self, tensor: Tensor) -> Tensor:
        """Replace ``tensor`` with its sum over all processes."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def broadcast_(self, tensor: Tensor) -> Tensor:
        """Replace ``tensor`` with that of the first process."""
        if self.world_size > 1:
            dist.broadcast(tensor, src=0)
        return tensor

    def maximum(self, value: float) -> float:
        """The largest ``value`` that any process passes."""
        if self.world_size == 1:
            return value
        largest = torch.tensor(value, dtype=torch.float64, device=self.device)
        return self.maximum_(largest).item()

    def maximum_(self, tensor: Tensor) -> Tensor:
        """Replace ``tensor`` with the elementwise largest of all processes."""
        if self.world_size > 1:
            dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return tensor

    def same(self, value: int) -> bool:
        """Whether all processes pass the same ``value``; every process gets the same answer."""
        return self.maximum(value) == -self.maximum(-value)

    def run_long(self, action: Callable[[], T]) -> T:
        """Run ``action`` on every process, however long it takes on any of them: they keep talking
        meanwhile, as waiting for one of them would time out. Returns when all have ended it.

        Raises:
            ConfigError: it failed on another process; this one does not wait for its own then.
        """
        if self.world_size == 1:
            return action()
        future: Future[T] = Future()
        threading.Thread(target=_settle, args=(future, action), daemon=True).start()
        while state := self.maximum(_state(future)):
            if state == _FAILED:
                if future.done():
                    future.result()
                raise ConfigError("another process failed; see its message")
            wait([future], _POLL_SECONDS)
        return future.result()

    def barrier(self) -> None:
        """Wait until all processes have called it."""
        if self.world_size > 1:
            dist.barrier()


@contextmanager
def process_group(device: DeviceName) -> Iterator[Process]:
    """Join the processes that torchrun started, or be the only one where it did not.

    Processes on GPUs talk over NCCL, those on CPUs over gloo. The group is destroyed after success
    only: NCCL would wait for the other processes, which may be waiting for this one.

    Raises:
        ConfigError: a GPU is asked for and this process has none.
        PeerError: another process ended while this one was communicating with it.
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
    try:
        dist.init_process_group(
            "nccl" if on_gpu else "gloo",
            store=_fresh_store(rank, world_size),
            rank=rank,
            world_size=world_size,
            timeout=_TIMEOUT,
            device_id=process.device if on_gpu else None,
        )
        yield process
    except RuntimeError as error:
        gone = _PEER_IS_GONE.search(str(error))
        if gone is None and not isinstance(error, dist.DistNetworkError):
            raise
        what = gone[gone.lastindex or 0] if gone else "its store is gone"
        raise PeerError(
            f"another process of this run has ended; see its output ({what})"
        ) from error
    dist.destroy_process_group()


def distribute(network: nn.Module, process: Process, *, compiled: bool = False) -> nn.Module:
    """The network, wrapped so that gradients are averaged over the processes, and compiled if that
    is asked for and possible.

    On GPUs, BatchNorm takes its statistics over all processes. PyTorch has no such BatchNorm for
    CPUs: there each process normalizes by its own share of the batch, and process 0's running
    statistics are used by all.
    """
    on_gpu = process.device.type == "cuda"
    if on_gpu and process.world_size > 1:
        # torch's own conversion drops the activation that timm's BatchNormAct2d contains
        network = convert_sync_batchnorm(network)
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


def _settle(future: Future[T], action: Callable[[], T]) -> None:
    try:
        future.set_result(action())
    except BaseException as error:
        future.set_exception(error)


def _state(future: Future[T]) -> int:
    if not future.done():
        return _RUNNING
    return _FAILED if future.exception() else _SUCCEEDED


def _fresh_store(rank: int, world_size: int) -> dist.Store:
    """A store for the processes of this attempt, separate from that of earlier attempts.

    torchrun keeps its store across restarts, so gloo would connect to the addresses of dead
    processes. Each attempt therefore uses a new key prefix: rank 0 generates it and hands it to
    every rank that announces itself with a random token.
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
    except Exception as error:  # torch's compilers define their own exceptions
        if process.is_first:
            print(
                "train.compile is ignored: torch.compile fails on this machine "
                f"({first_line(error)})",
                flush=True,
            )
        return network
    torch._dynamo.config.suppress_errors = True  # what cannot be compiled runs uncompiled
    return cast(nn.Module, torch.compile(network))
