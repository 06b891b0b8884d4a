"""The whitened start: the map before the cosine, learned from the images that are trained on."""

import copy

from evaluation.extractor import ExtractionConfig, FeatureExtractor
from evaluation.trained import TrainedNetwork
from evaluation.whitening import learn_whitening
from model.backbone import for_inference
from model.network import ReSeND
from pipelines.pairs import PairData
from runtime.distributed import Process
from runtime.precision import exact_float32
from training.config import TrainConfig


@exact_float32()
def whiten(network: ReSeND, config: TrainConfig, data: PairData, process: Process) -> None:
    """Give the relation the whitening of its backbone's features as they are now.

    The images are prepared as in evaluation, without random crops or colors. All processes call
    it.

    Raises:
        PackError: an image is damaged, or the features of a class do not differ enough.
        CheckpointError: a feature is not finite.
    """
    assert network.relation.whitening is not None
    frozen = copy.deepcopy(network).requires_grad_(False).eval()
    extractor = FeatureExtractor(
        TrainedNetwork(frozen, for_inference(frozen.backbone)),
        data.pack,
        process,
        ExtractionConfig(config.input, config.validation.batch_size),
    )
    learned = learn_whitening(extractor, data.rows)
    network.relation.whitening.load_state_dict(learned.state_dict())
