"""The average of a network's weights over the training steps."""

from timm.utils import ModelEmaV3
from torch import nn

from model.network import Classifier, ReSeND
from runtime.checkpoint import Checkpoint
from runtime.weights import load_strictly
from training.config import TrainConfig

# The average after t steps reaches back over about t^0.75 of them, until ``decay`` limits it.
_WARMUP_POWER = 0.75


class AveragedNetwork:
    """An exponential moving average of the trained weights of ``network``, timm's ``ModelEmaV3``.

    After step t (from 1 on) it is ``average <- d average + (1 - d) weights`` with
    ``d = min(decay, 1 - t^-0.75)``, so that the initial weights are forgotten at once. Buffers,
    such as BatchNorm's running statistics, are copied. All processes compute the same average.

    Args:
        network: with the weights that the average starts from.
        config: ``train.ema`` is the decay.
        found: the checkpoint that the run continues from, whose average is taken if it has one.

    Attributes:
        network: in evaluation mode; a frozen backbone is shared with ``network``.

    Raises:
        CheckpointError: the checkpoint's average does not fit the network.
    """

    def __init__(
        self, network: ReSeND | Classifier, config: TrainConfig, found: Checkpoint | None
    ) -> None:
        frozen = network if config.train.frozen and isinstance(network, ReSeND) else None
        trained: nn.Module = network if frozen is None else frozen.on_features()
        self._average = ModelEmaV3(
            trained,
            config.train.ema,
            use_warmup=True,
            warmup_power=_WARMUP_POWER,
            exclude_buffers=True,
        )
        self._trained = trained
        averaged = self._average.module.requires_grad_(False)
        self.network: ReSeND | Classifier = averaged
        if frozen is not None:
            self.network = ReSeND(frozen.backbone, averaged.relation, frozen.preprocessing)
        self.network.eval()
        if found is not None and found.averaged is not None:
            load_strictly(self.network, found.averaged, str(found.path))

    def update(self, step: int) -> None:
        """Add the weights after ``step`` steps."""
        self._average.update(self._trained, step)
