"""The training images and their pairs."""

from dataclasses import dataclass

import numpy as np

from pipelines.loader import PairLoader
from pipelines.pack import Pack
from pipelines.plan import PairPlan
from pipelines.selection import Selection
from runtime.distributed import Process
from training.config import TrainConfig


@dataclass(frozen=True)
class TrainingSet:
    """Pairs of a pack's images.

    Attributes:
        pack: where the images are.
        rows: int64 (N,), the index rows of the training images.
        plan: pairs of indices into ``rows``.
    """

    pack: Pack
    rows: np.ndarray
    plan: PairPlan

    @staticmethod
    def load(config: TrainConfig) -> "TrainingSet":
        """What ``config.data`` selects; PackError where it selects nothing."""
        data = config.data
        pack = Pack(data.pack)
        rows = Selection(data.domains, data.classes, data.splits).rows(pack)
        plan = PairPlan(
            pack.index.label[rows],
            seed=config.seed,
            num_negatives=data.num_negatives,
            balanced=data.balanced,
        )
        return TrainingSet(pack, rows, plan)

    def loader(self, config: TrainConfig, process: Process, start: int) -> PairLoader:
        """This process's micro-batches from step ``start`` on, ``train.accumulate`` per step.

        A micro-batch is a step of the loader, so that any number of processes and micro-batches
        draws the same pairs for a step.
        """
        loop = config.train
        return PairLoader(
            self.pack,
            self.rows,
            self.plan,
            config.augment,
            config.input,
            global_batch=loop.global_batch // loop.accumulate,
            rank=process.rank,
            world_size=process.world_size,
            start_step=start * loop.accumulate,
            device_id=process.local_rank,
        )

    def keys(self, start: int, count: int) -> tuple[list[str], list[str]]:
        """The keys of the anchors and of the partners of ``count`` pairs from ``start`` on."""
        pairs = self.plan.pairs(start, count)
        return (
            self.pack.keys(self.rows[pairs.anchor]),
            self.pack.keys(self.rows[pairs.partner]),
        )
