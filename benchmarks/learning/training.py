"""Trains relations with the product's own plans, losses and steps."""

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.learning.features import Source
from benchmarks.learning.splits import Split
from benchmarks.learning.variants import Variant
from evaluation.features import Features
from model.calibration import calibrate
from model.config import ObjectiveConfig
from model.network import ReSeND
from model.whitening import Whitening
from pipelines.config import SamplingConfig
from pipelines.loader import PairLoader
from training import task
from training.config import (
    DataConfig,
    LoopConfig,
    NetworkConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
    TrainInputConfig,
)
from training.data import feature_loader, load_pairs, pair_loader
from training.frozen import FeatureLoader
from training.optimization import build_optimizer
from training.step import Stepper

HEAD_DIM = 32


@dataclass(frozen=True)
class Budget:
    """How much each training may use.

    Attributes:
        steps: of P x K.
        classes: P of a step.
        images: K of each class.
        negatives: for each positive pair, of independent pairs as well.
        lr: the learning rate of the relation; that of the backbone is ``backbone_factor`` of it.
        backbone_factor: see ``lr``.
        image_size: of a backbone that is trained; None for a frozen one.
    """

    steps: int
    classes: int
    images: int = 4
    negatives: int = 3
    lr: float = 1e-3
    backbone_factor: float = 0.1
    image_size: int | None = None

    @property
    def groups(self) -> SamplingConfig:
        """A step of P x K."""
        return SamplingConfig("classes", self.classes, self.images, self.negatives)


class Work(NamedTuple):
    """What a training used: pairs, images and seconds."""

    pairs: int
    images: int
    seconds: float


class Trained(NamedTuple):
    """A trained network, and what it took."""

    network: ReSeND
    work: Work


@dataclass(frozen=True)
class Start:
    """Where the trainings on a split begin.

    Attributes:
        source: the published backbone and the images.
        split: its training classes are trained on.
        features: of all images, of that backbone at the training's image size.
        whitening: of those of the training classes.
    """

    source: Source
    split: Split
    features: Features
    whitening: Whitening


def train(start: Start, variant: Variant, budget: Budget, seconds: float | None = None) -> Trained:
    """Train the relation, and where ``budget.image_size`` is given the backbone.

    The steps are those of the budget or, where ``seconds`` are given, as many as fit into them.
    """
    config = _config(start, variant, budget)
    process = start.source.process
    data = load_pairs(config)
    torch.manual_seed(config.seed)
    network = task.build(config, data.plan.num_classes)
    assert isinstance(network, ReSeND)
    network.to(process.device).to(memory_format=torch.channels_last)
    if network.relation.whitening is not None:
        network.relation.whitening.load_state_dict(start.whitening.state_dict())
    if variant.calibrated:
        classes = torch.from_numpy(data.plan.classes.astype(np.int64)).to(process.device)
        features = start.features.of(data.rows)
        negatives = config.data.negatives_per_positive
        calibrate(network.relation, features, classes, negatives, config.objective)
    loader: PairLoader | FeatureLoader
    if config.train.frozen:
        network.backbone.requires_grad_(False)
        view = start.features.of(data.rows).half()[None]
        loader = feature_loader(data, view, config, process, 0)
    else:
        loader = pair_loader(data, config, process, 0)
    optimizer = build_optimizer(
        config.optimizer, task.parameter_groups(network, config.optimizer.backbone_factor)
    )
    steps, elapsed = _run(Stepper(config, process, network, optimizer, loader), budget, seconds)
    positions = steps * config.train.global_batch // data.plan.pairs_per_position
    images = positions * data.plan.images_per_position
    return Trained(network, Work(steps * config.train.global_batch, images, elapsed))


def _run(stepper: Stepper, budget: Budget, seconds: float | None) -> tuple[int, float]:
    """The steps done and the seconds they took."""
    started = time.perf_counter()
    done, elapsed = 0, 0.0
    while done < budget.steps if seconds is None else elapsed < seconds:
        stepper.step(done)
        done, elapsed = done + 1, time.perf_counter() - started
    return done, elapsed


def _config(start: Start, variant: Variant, budget: Budget) -> TrainConfig:
    source, groups = start.source, budget.groups
    batch = groups.pairs_per_group
    if variant.sampling == "equal images":
        batch = groups.images_per_group // 2
    return TrainConfig(
        data=_data(start, variant, budget),
        out=Path("unused"),
        seed=start.split.seed,
        model=NetworkConfig(
            source.backbone,
            embed_dim=variant.width,
            depth=variant.depth,
            num_heads=max(1, variant.width // HEAD_DIM),
            num_logits=2 if variant.objective == "cross_entropy" else 1,
            similarity_start=variant.start,
            backbone_weights=str(source.weights),
        ),
        objective=ObjectiveConfig(variant.objective),
        optimizer=OptimizerConfig(
            "adamw", budget.lr, weight_decay=0.05, backbone_factor=budget.backbone_factor
        ),
        schedule=ScheduleConfig("constant", warmup=0),
        train=LoopConfig(
            iterations=budget.steps,
            global_batch=batch,
            backbone="frozen" if budget.image_size is None else "trained",
            views=1,
        ),
        input=TrainInputConfig(**asdict(source.preprocessing(budget.image_size))),
    )


def _data(start: Start, variant: Variant, budget: Budget) -> DataConfig:
    pack = start.source.pack
    numbers = sorted(set(pack.index.label[start.split.training].tolist()))
    sampling = SamplingConfig()
    if variant.sampling == "P x K":
        sampling = replace(budget.groups, mean_partners=variant.mean_partners)
    return DataConfig(
        pack=str(pack.path),
        classes=tuple(pack.manifest.classes[number] for number in numbers),
        num_negatives=budget.negatives,
        sampling=sampling,
    )
