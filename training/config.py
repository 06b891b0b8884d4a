"""The configuration of a training run."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from model.config import ModelConfig, ObjectiveConfig, Preprocessing, PreprocessingOptions
from pipelines.config import MAX_PAIRS, AugmentConfig, InputConfig, SamplingConfig
from runtime.checks import above, check_numbers, number, whole
from training.output_config import MAX_STEPS, CheckpointConfig, LogConfig, ValidationConfig


@dataclass(frozen=True)
class PackConfig:
    """One of several packs to train on.

    Attributes:
        pack: folder of the pack, or its URL.
        weight: multiplies the number of anchors of the pack's classes, above 0 and up to 1,000.
        domains: domains to train on; null for all.
        classes: classes to train on; null for all.
        splits: splits to train on; null for all.
    """

    pack: str
    weight: float = 1.0
    domains: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    splits: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_numbers("data.packs", self, weight=above(0, 1000))


@dataclass(frozen=True)
class DataConfig:
    """The training pairs.

    Attributes:
        pack: folder of the pack, or its URL, such as s3://bucket/packs/imagenet.
        cache: folder on each node's own disk that packs at URLs are copied to before training.
        domains: domains to train on; null for all.
        classes: classes to train on; null for all.
        splits: splits to train on; null for all.
        packs: several packs, in place of ``pack``, each with a selection of its own.
        merge_classes: whether classes of the same name in different packs are one.
        num_negatives: negative pairs per positive pair, of independent pairs.
        balanced: give each class the same number of anchors, of independent pairs.
        sampling: whether pairs are independent, or many pairs share an image.
    """

    pack: str | None = None
    cache: Path | None = None
    domains: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    splits: tuple[str, ...] | None = None
    packs: tuple[PackConfig, ...] = ()
    merge_classes: bool = False
    num_negatives: int = 20
    balanced: bool = True
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        check_numbers("data", self, num_negatives=whole(1, 10_000))
        if (self.pack is None) == (not self.packs):
            raise ValueError("set either data.pack or data.packs, and not both")
        if self.merge_classes and not self.packs:
            raise ValueError("data.merge_classes needs data.packs")
        if self.grouped and any(pack.weight != 1 for pack in self.packs):
            raise ValueError(
                "data.packs.weight needs data.sampling.kind independent; groups draw each class "
                "equally often"
            )
        for name in ("domains", "classes", "splits"):
            if self.packs and getattr(self, name) is not None:
                raise ValueError(
                    f"data.{name} excludes data.packs; select within each of the packs"
                )

    @property
    def grouped(self) -> bool:
        """Whether groups of classes are drawn in place of independent pairs."""
        return self.sampling.kind == "classes"

    @property
    def negatives_per_positive(self) -> int:
        """Negative pairs per positive pair, however they are drawn."""
        return self.sampling.negatives if self.grouped else self.num_negatives

    @property
    def sources(self) -> tuple[PackConfig, ...]:
        """The packs and what is selected of each."""
        if self.pack is None:
            return self.packs
        return (PackConfig(self.pack, 1.0, self.domains, self.classes, self.splits),)


@dataclass(frozen=True)
class NetworkConfig(ModelConfig):
    """The network, and the weights that its backbone starts from.

    A checkpoint needs only the fields of ``ModelConfig``; these two matter only at the start.

    Attributes:
        pretrained: start the backbone from timm's published weights, which timm downloads.
        backbone_weights: start it from these weights: a run or checkpoint of ours, a .safetensors
            file, or a state dict with timm's or torchvision's names.
    """

    pretrained: bool = False
    backbone_weights: str | None = None


@dataclass(frozen=True)
class TrainInputConfig(PreprocessingOptions, InputConfig):
    """How images are read, decoded and prepared."""

    def __post_init__(self) -> None:
        PreprocessingOptions.__post_init__(self)
        InputConfig.__post_init__(self)

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of a configuration that has been resolved, where nothing is null."""
        return Preprocessing(**{f.name: getattr(self, f.name) for f in fields(Preprocessing)})


@dataclass(frozen=True)
class LoopConfig:
    """The training loop.

    Attributes:
        iterations: optimizer steps.
        global_batch: pairs per step over all devices; where data.sampling draws groups, it is not
            read but follows from them.
        recipe_ranks: world size for which global_batch or data.sampling.groups, optimizer.lr and
            all step counts were chosen; only ``scale: linear`` uses it.
        accumulate: gradient-accumulation steps (micro-batches per optimizer step), to save memory;
            with ``scale: linear`` a micro-batch is as large as a step of one of the recipe's ranks.
        activation_checkpointing: keep only few of the backbone's activations and recompute the
            others in the backward pass, to save memory; gradients stay the same.
        pairs_at_once: pairs of a group of which the relational module keeps activations at a time,
            to save memory; null for all, at most 65,535.
        clip: maximum gradient norm; null disables clipping.
        ema: decay per step of an exponential moving average of the weights, such as 0.9999, which
            is saved beside them and evaluated in their place; 0 for none.
        precision: float32 computes products in TF32 on GPUs that have it; bfloat16 is mixed
            precision, with weights and optimizer state in float32.
        compile: compile the network with torch.compile where that works.
        max_loss: a mean loss above this, or one that is not finite, stops the run.
        backbone: ``frozen`` trains the relational module alone, on features of the training images
            that are extracted once, before the first step.
        views: augmented views of each image whose features a frozen backbone gives, of which each
            step takes one; 1 for the view of evaluation alone.
        feature_cache: folder where the features of a frozen backbone are kept, on a file system
            that all nodes share.
    """

    iterations: int = 13_000
    global_batch: int = 4096
    recipe_ranks: int = 16
    accumulate: int = 1
    activation_checkpointing: bool = False
    pairs_at_once: int | None = None
    clip: float | None = None
    ema: float = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    max_loss: float = 1e4
    backbone: Literal["trained", "frozen"] = "trained"
    views: int = 4
    feature_cache: Path = Path("runs/features")

    def __post_init__(self) -> None:
        check_numbers(
            "train",
            self,
            iterations=whole(1, MAX_STEPS),
            global_batch=whole(1, MAX_PAIRS),
            recipe_ranks=whole(1, MAX_PAIRS),
            accumulate=whole(1, MAX_PAIRS),
            pairs_at_once=whole(1, MAX_PAIRS),
            clip=above(0),
            ema=number(0, 0.999999999),
            max_loss=above(0),
            views=whole(1, 1024),
        )
        if self.frozen and self.activation_checkpointing:
            raise ValueError(
                "train.activation_checkpointing needs train.backbone trained; a frozen backbone "
                "keeps no activations"
            )

    @property
    def frozen(self) -> bool:
        """Whether the backbone is frozen."""
        return self.backbone == "frozen"


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer; the defaults are the paper's.

    Attributes:
        name: ``lars`` is timm's, over SGD with momentum; ``torchlars`` is the package of that name,
            if installed, which computes the same updates.
        lr: learning rate after the warm-up, for the global batch ``train.global_batch``.
        momentum: momentum of lars, torchlars and sgd.
        betas: betas of adamw.
        weight_decay: applied to all parameters, biases and norms included; decoupled for adamw.
        backbone_factor: multiplies the learning rate of the backbone's parameters.
    """

    name: Literal["lars", "torchlars", "sgd", "adamw"] = "lars"
    lr: float = 0.008
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 5e-4
    backbone_factor: float = 1.0

    def __post_init__(self) -> None:
        check_numbers(
            "optimizer",
            self,
            lr=number(0),
            momentum=number(0, 0.9999),
            betas=number(0, 0.999999),
            weight_decay=number(0),
            backbone_factor=number(0),
        )


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate over the steps.

    Attributes:
        name: ``step`` multiplies by ``gamma`` at each milestone, ``cosine`` falls to 0 at the last
            step, ``constant`` stays.
        warmup: steps in which the rate rises linearly from 0.
        milestones: for ``step``, in steps after the warm-up.
        gamma: for ``step``, the factor at each milestone.
    """

    name: Literal["step", "cosine", "constant"] = "step"
    warmup: int = 500
    milestones: tuple[int, ...] = (13_000,)
    gamma: float = 0.1

    def __post_init__(self) -> None:
        check_numbers(
            "schedule",
            self,
            warmup=whole(0, MAX_STEPS),
            milestones=whole(0, MAX_STEPS),
            gamma=number(0),
        )


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Attributes:
        data: the training pairs.
        out: folder for checkpoints and logs.
        task: ``relation`` learns whether two images show the same class; ``classification`` learns
            the classes of the same images, to pre-train a backbone.
        seed: random seed of the initial weights and of the pairs.
        resume: ``auto`` continues from the newest checkpoint in the run's folder, if there is one;
            ``never`` refuses a folder that has one.
        scale: ``linear`` scales global batch, learning rate and step counts with the number of
            devices; ``none`` takes them as they are.
        dry_run: print the resolved configuration, sizes and a memory estimate, and stop; downloads
            no pack and no weights, and writes nothing.
        profile: trace so many steps, after three others, with PyTorch's profiler, into the folder
            ``profile`` of the run; 0 for none.
    """

    data: DataConfig
    out: Path
    task: Literal["relation", "classification"] = "relation"
    seed: int = 0
    resume: Literal["auto", "never"] = "auto"
    scale: Literal["linear", "none"] = "none"
    dry_run: bool = False
    profile: int = 0
    model: NetworkConfig = field(default_factory=NetworkConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    train: LoopConfig = field(default_factory=LoopConfig)
    input: TrainInputConfig = field(default_factory=TrainInputConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self) -> None:
        check_numbers("", self, seed=whole(0), profile=whole(0, 1000))
        if self.train.frozen and self.task != "relation":
            raise ValueError(
                "train.backbone frozen needs task: relation; classification trains the backbone"
            )
        if self.log.samples and (self.train.frozen or self.task != "relation"):
            raise ValueError(
                "log.samples needs task: relation and train.backbone: trained, which see pairs of "
                "images; set it to 0"
            )
