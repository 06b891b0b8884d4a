"""The pairs that a configuration trains on."""

from dataclasses import replace

from torch import Tensor

from pipelines.config import Decoding
from pipelines.loader import PairLoader
from pipelines.pack import Pack
from pipelines.packs import joined
from pipelines.pairs import PairData, Share
from pipelines.selection import Selection
from runtime.distributed import Process
from sharding.staging import local_pack
from training.config import TrainConfig
from training.frozen import FeatureLoader


def with_local_packs(config: TrainConfig, process: Process) -> TrainConfig:
    """The configuration with each pack that is at a URL replaced by its copy on this node, which is
    made first unless it is there.

    Raises:
        UserError: as ``sharding.staging.local_pack``.
    """

    def local(pack: str) -> str:
        download = not config.dry_run
        folder = process.run_long(
            lambda: local_pack(pack, config.data.cache, "--data.cache", download=download)
        )
        return str(folder)

    data, validation = config.data, config.validation
    if data.pack is not None:
        data = replace(data, pack=local(data.pack))
    packs = tuple(replace(source, pack=local(source.pack)) for source in data.packs)
    if validation.pack is not None:
        validation = replace(validation, pack=local(validation.pack))
    return replace(config, data=replace(data, packs=packs), validation=validation)


def load_pairs(config: TrainConfig) -> PairData:
    """The pairs of ``config.data``; PackError if it selects nothing."""
    data = config.data
    pack = joined([Pack(source.pack) for source in data.sources], merge_classes=data.merge_classes)
    selections = [
        Selection(source.domains, source.classes, source.splits) for source in data.sources
    ]
    if data.grouped:
        return PairData.select_groups(pack, selections, data.sampling, seed=config.seed)
    return PairData.select(
        pack,
        selections,
        [source.weight for source in data.sources],
        seed=config.seed,
        num_negatives=data.num_negatives,
        balanced=data.balanced,
    )


def pair_loader(data: PairData, config: TrainConfig, process: Process, start: int) -> PairLoader:
    """This process's batches from step ``start`` on, ``train.accumulate`` of them per step.

    Each micro-batch of a step is one step of the loader, so that a step has the same pairs for any
    number of processes and micro-batches.
    """
    return PairLoader(
        data,
        config.augment,
        Decoding(config.input.preprocessing, config.input, process.local_rank),
        _share(data, config, process),
        start_step=start * config.train.accumulate,
    )


def feature_loader(
    data: PairData, features: Tensor, config: TrainConfig, process: Process, start: int
) -> FeatureLoader:
    """As ``pair_loader``, of ``features``, float16 (V, N, D), in place of images."""
    share = _share(data, config, process)
    return FeatureLoader(data, features, share, start_step=start * config.train.accumulate)


def _share(data: PairData, config: TrainConfig, process: Process) -> Share:
    """This process's part of a micro-batch."""
    positions = config.train.global_batch // data.plan.pairs_per_position
    return Share(positions // config.train.accumulate, process.rank, process.world_size)
