"""Which evaluators score which network."""

from collections.abc import Sequence

from evaluation.config import BARE_DEFAULT, RELATIONAL_DEFAULT, ClassifierName
from evaluation.networks import NamedNetwork
from model.config import EVALUATORS, NEED_CLASSIFIER, RELATIONAL, WHITENED_COSINE, WITH_IMAGES
from runtime.errors import ConfigError


def check_classifier(asked: Sequence[str], classifier: ClassifierName | None) -> None:
    """Raise ConfigError where an evaluator of ``asked`` lacks its classifier, or the classifier an
    evaluator."""
    named = [name for name in asked if name in NEED_CLASSIFIER]
    of_images = [name for name in named if name in WITH_IMAGES]
    if of_images and classifier != "full":
        raise ConfigError(
            f"{of_images[0]} reads gradients or hidden layers of a classifier trained with its "
            "backbone; add --classifier full"
        )
    if named and classifier is None:
        raise ConfigError(
            f"{named[0]} needs a classifier of the known classes; add --classifier head"
        )
    if classifier is not None and not named and "all" not in asked:
        raise ConfigError(
            f"no evaluator reads the --classifier; add some of {', '.join(NEED_CLASSIFIER)} to "
            "--evaluators, or leave it out"
        )


def choose_evaluators(
    networks: Sequence[NamedNetwork],
    asked: Sequence[str] | None,
    *,
    learns_whitening: bool,
    classifier: ClassifierName | None = None,
) -> list[tuple[str, ...]]:
    """The evaluators of each of the ``networks``.

    By default they depend on whether it has a relational module; ``all`` means those that can be
    computed. Those that are named are computed for every network, but the relational ones only for
    those with a relational module.

    Args:
        networks: what is evaluated.
        asked: names of evaluators, or all; None for the default.
        learns_whitening: whether there are images to learn a whitening from.
        classifier: which classifier of the known classes is trained; see ``check_classifier``.

    Raises:
        ConfigError: a named evaluator can be computed for no network, none is left for a network,
            or a network has no whitening.
    """
    if asked is None:
        return [BARE_DEFAULT if network.is_bare else RELATIONAL_DEFAULT for network in networks]
    possible = [_possible(network, learns_whitening, classifier) for network in networks]
    if "all" in asked:
        return [tuple(name for name in EVALUATORS if name in names) for names in possible]
    relational = [name for name in asked if name in RELATIONAL]
    chosen = []
    for network, names in zip(networks, possible, strict=True):
        left = tuple(name for name in asked if name not in relational or not network.is_bare)
        if not left or (relational and all(other.is_bare for other in networks)):
            raise ConfigError(
                f"{network.name} has no relational module for {', '.join(relational)}; "
                f"choose from {', '.join(names)}"
            )
        if WHITENED_COSINE in left and WHITENED_COSINE not in names:
            raise ConfigError(
                f"{WHITENED_COSINE} has no covariance: {network.name} was not trained from a "
                "whitened start; give a pack of training images as --covariance-pack"
            )
        chosen.append(left)
    return chosen


def _possible(
    network: NamedNetwork, learns_whitening: bool, classifier: ClassifierName | None
) -> tuple[str, ...]:
    """The evaluators that can be computed for the network."""
    relation = network.trained.network.relation
    stored = relation is not None and relation.whitening is not None
    lacking: set[str] = set() if learns_whitening or stored else {WHITENED_COSINE}
    if relation is None:
        lacking.update(RELATIONAL)
    if classifier != "full":
        lacking.update(NEED_CLASSIFIER if classifier is None else WITH_IMAGES)
    return tuple(name for name in EVALUATORS if name not in lacking)
