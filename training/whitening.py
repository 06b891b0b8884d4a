"""The whitened start: the map before the cosine, learned from the images that are trained on."""

from evaluation.whitening import learn_whitening
from model.network import ReSeND
from pipelines.pairs import PairData
from runtime.distributed import Process
from runtime.precision import exact_float32
from training.config import TrainConfig
from training.extraction import training_extractor


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
    learned = learn_whitening(training_extractor(network, config, data, process), data.rows)
    network.relation.whitening.load_state_dict(learned.state_dict())
