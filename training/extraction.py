"""The features of the training images under the backbone as it is now."""

import copy

from evaluation.extractor import ExtractionConfig, FeatureExtractor
from evaluation.trained import TrainedNetwork
from model.backbone import for_inference
from model.config import Precision
from model.network import ReSeND
from pipelines.pairs import PairData
from runtime.distributed import Process
from training.config import TrainConfig


def training_extractor(
    network: ReSeND,
    config: TrainConfig,
    data: PairData,
    process: Process,
    precision: Precision = "float32",
) -> FeatureExtractor:
    """Of a copy of the network, on the pack of ``data``; images are prepared as in evaluation."""
    frozen = copy.deepcopy(network).requires_grad_(False).eval()
    return FeatureExtractor(
        TrainedNetwork(frozen, for_inference(frozen.backbone)),
        data.pack,
        process,
        ExtractionConfig(config.input, config.validation.batch_size, precision),
    )
