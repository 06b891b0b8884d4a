"""How long a device stands idle while its next batch is not ready."""

import time

import torch


class DataWait:
    """A context around each wait for a batch; it adds up the device's idle time.

    On a CPU that is the time spent in the context. On a GPU the host runs ahead, so the device
    may still be busy during the wait. An event recorded on entering is reached when the device has
    finished everything launched before; one recorded on leaving, when the batch is ready as well.
    The time between the two is the device's idle time, and the host waits for neither.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._seconds = 0.0
        self._entered = 0.0
        self._events: list[torch.cuda.Event] = []  # entering, leaving, entering, leaving, ...

    def __enter__(self) -> None:
        if self._on_gpu:
            self._record()
        else:
            self._entered = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        if self._on_gpu:
            self._record()
        else:
            self._seconds += time.perf_counter() - self._entered

    def take(self) -> float:
        """Idle seconds since the previous call; on a GPU it waits for the last batch."""
        if self._events:
            self._events[-1].synchronize()
            pairs = zip(self._events[::2], self._events[1::2], strict=True)
            self._seconds = sum(entered.elapsed_time(left) for entered, left in pairs) / 1000
            self._events = []
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def _record(self) -> None:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._events.append(event)
