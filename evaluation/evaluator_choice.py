"""Which evaluators score which network."""

from collections.abc import Sequence

from evaluation.config import BARE_DEFAULT, RELATIONAL_DEFAULT
from evaluation.networks import NamedNetwork
from model.config import EVALUATORS, RELATIONAL, WHITENED_COSINE
from runtime.errors import ConfigError


def choose_evaluators(
    networks: Sequence[NamedNetwork], asked: Sequence[str] | None, *, learns_whitening: bool
) -> list[tuple[str, ...]]:
    """The evaluators of each of the ``networks``.

    By default they depend on whether it has a relational module; ``all`` means those that can be
    computed. Those that are named are computed for every network, but the relational ones only for
    those with a relational module.

    Args:
        networks: what is evaluated.
        asked: names of evaluators, or all; None for the default.
        learns_whitening: whether there are images to learn a whitening from.

    Raises:
        ConfigError: a named evaluator can be computed for no network, none is left for a network,
            or a network has no whitening.
    """
    if asked is None:
        return [BARE_DEFAULT if network.is_bare else RELATIONAL_DEFAULT for network in networks]
    possible = [_possible(network, learns_whitening) for network in networks]
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


def _possible(network: NamedNetwork, learns_whitening: bool) -> tuple[str, ...]:
    """The evaluators that can be computed for the network."""
    relation = network.trained.network.relation
    stored = relation is not None and relation.whitening is not None
    return tuple(
        name
        for name in EVALUATORS
        if not (relation is None and name in RELATIONAL)
        and (learns_whitening or stored or name != WHITENED_COSINE)
    )
