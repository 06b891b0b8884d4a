"""The trainings that are compared: each a row of a table."""

from dataclasses import dataclass, replace
from typing import Literal

from model.config import ObjectiveName, SimilarityStart

Sampling = Literal["P x K", "equal images", "equal pairs", "equal time"]


@dataclass(frozen=True)
class Variant:
    """One way to train the relation.

    Attributes:
        name: of its row.
        start: what the similarity is measured with at the start; False for none.
        calibrated: whether scale and offset of the start are fitted to training pairs.
        objective: the loss.
        sampling: ``P x K``, or independent pairs with as many images, pairs or seconds.
        mean_partners: whether partners may be means of several images.
        width: of the relational module.
        depth: its number of blocks.
    """

    name: str
    start: SimilarityStart = "whitened"
    calibrated: bool = True
    objective: ObjectiveName = "bce"
    sampling: Sampling = "P x K"
    mean_partners: bool = False
    width: int = 64
    depth: int = 1


BASE = Variant("whitened start, bce, P x K")
INDEPENDENT = replace(BASE, sampling="equal images", name="independent pairs, equal images")

STARTS = (
    Variant("random start", start=False, calibrated=False),
    Variant("cosine start", start="cosine", calibrated=False),
    Variant("cosine start, calibrated", start="cosine"),
    Variant("whitened start, not calibrated", calibrated=False),
)
OBJECTIVES = (
    Variant("mse", objective="mse"),
    Variant("hinge", objective="hinge"),
    Variant("focal", objective="focal"),
    Variant("cross_entropy, two logits", objective="cross_entropy"),
)
PAIRS = (
    Variant("mean partners", mean_partners=True),
    INDEPENDENT,
    Variant("independent pairs, equal pairs", sampling="equal pairs"),
    Variant("independent pairs, equal time", sampling="equal time"),
)
SIZES = (
    Variant("128 wide, 2 blocks", width=128, depth=2),
    Variant(
        "the paper's: random start, mse, independent pairs, equal pairs",
        start=False,
        calibrated=False,
        objective="mse",
        sampling="equal pairs",
    ),
)
ON_FROZEN = (BASE, *STARTS, *OBJECTIVES, *PAIRS, *SIZES)
