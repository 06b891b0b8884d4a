"""How fast pairs are trained on that share their images."""

from collections.abc import Iterator
from itertools import count

from benchmarks.gpu.node import Budget, Node, Row, Value
from benchmarks.gpu.training import configuration, time_steps
from benchmarks.harness import seconds_per_call
from benchmarks.training import build_stepper, frozen_step, head_step, with_groups
from runtime.distributed import Process, process_group
from training.config import TrainConfig
from training.data import load_pairs, pair_loader

# What each way is compared with.
_WAYS = {
    "independent pairs": None,
    "groups": "independent pairs",
    "plain module": None,
    "shared projections": "plain module",
    "frozen backbone": "shared projections",
}


def steps(node: Node, budget: Budget) -> Iterator[Row]:
    """Steps of independent pairs and of groups, from the resized pack; the relational module alone,
    with and without shared projections; the step of a frozen backbone. All in bfloat16."""
    config = configuration(node, "bfloat16", compiled=False)
    grouped = with_groups(config, node.size.groups)
    rates: dict[str, float] = {}
    with process_group(node.device) as process:
        for (name, base), seconds in budget.split(list(_WAYS.items())):
            own = config if name == "independent pairs" else grouped
            if name in ("independent pairs", "groups"):
                each, values = _fed(own, process, seconds)
            else:
                each, values = _alone(name, own, process, seconds)
            rates[name] = own.train.global_batch / each
            if base in rates:
                values[f"x {base}"] = rates[name] / rates[base]
            yield Row(name, {"pairs/s": rates[name], "ms per step": 1000 * each, **values})


def _fed(config: TrainConfig, process: Process, seconds: float) -> tuple[float, dict[str, Value]]:
    """Seconds per step with the pack's images, and the share of waiting for them."""
    data = load_pairs(config)
    stepper = build_stepper(config, process, data, pair_loader(data, config, process, 0))
    numbers = count(1)
    each, waiting = time_steps(
        lambda: stepper.step(next(numbers)), stepper, process.device, 0.8 * seconds
    )
    return each, {"waiting share": waiting}


def _alone(
    name: str, config: TrainConfig, process: Process, seconds: float
) -> tuple[float, dict[str, Value]]:
    """Seconds per step on random features."""
    data = load_pairs(config)
    if name == "frozen backbone":
        step = frozen_step(config, process, data)
    else:
        step = head_step(config, process, data, shared=name == "shared projections")
    return seconds_per_call(step, process.device, 0.8 * seconds), {}
