"""The whitened start: the map before the cosine, learned from the images that are trained on, and
the scale and offset that suit it."""

from evaluation.whitening import labeled_features, whitening_of
from model.calibration import calibrate
from model.network import ReSeND
from pipelines.pairs import PairData
from runtime.distributed import Process
from runtime.precision import exact_float32
from training.config import TrainConfig
from training.extraction import training_extractor


@exact_float32()
def whiten(network: ReSeND, config: TrainConfig, data: PairData, process: Process) -> None:
    """Give the relation the whitening of its backbone's features as they are now, and calibrate it.

    The images are prepared as in evaluation, without random crops or colors. All processes call
    it.

    Raises:
        PackError: an image is damaged, or the features of a class do not differ enough.
        CheckpointError: a feature is not finite.
    """
    relation = network.relation
    assert relation.whitening is not None
    extractor = training_extractor(network, config, data, process)
    labeled = labeled_features(extractor, data.rows)
    relation.whitening.load_state_dict(whitening_of(extractor, labeled).state_dict())
    calibrate(
        relation,
        labeled.features,
        labeled.classes,
        config.data.negatives_per_positive,
        config.objective,
    )
