"""Few-shot reference sets: some of a protocol's references, drawn from a seed."""

from dataclasses import dataclass, replace

import numpy as np

from evaluation.protocol import ProtocolRows
from runtime.errors import PackError


@dataclass(frozen=True)
class ReferenceConfig:
    """Which of a protocol's references are used.

    Attributes:
        shots: references drawn for each class; 0 takes all.
        seed: of the draw, which is made for each class anew.
        replacement: draw with replacement, as published few-shot numbers were.
        minimum: a class with fewer references in the protocol is refused.
    """

    shots: int = 0
    seed: int = 0
    replacement: bool = False
    minimum: int = 2


def choose_references(
    rows: ProtocolRows, known: tuple[str, ...], config: ReferenceConfig
) -> ProtocolRows:
    """``rows`` with the references that ``config`` leaves, an image as often as it was drawn.

    Raises:
        PackError: a class has fewer references than ``minimum``, or than ``shots`` where they are
            drawn without replacement.
    """
    counts = np.bincount(rows.reference_class, minlength=len(known))
    fewest = int(counts.argmin())
    has = f"class {known[fewest]} has {counts[fewest]} reference image(s)"
    if counts[fewest] < config.minimum:
        raise PackError(
            f"{has}, fewer than {config.minimum}; add images, or lower --min-references"
        )
    if not config.shots:
        return rows
    if config.shots > counts[fewest] and not config.replacement:
        raise PackError(
            f"{has}, fewer than --shots {config.shots}; ask for fewer, or --with-replacement"
        )
    drawn = np.concatenate(
        [
            np.random.default_rng(config.seed).choice(
                np.flatnonzero(rows.reference_class == number),
                config.shots,
                replace=config.replacement,
            )
            for number in range(len(known))
        ]
    )
    order = np.sort(drawn)
    return replace(
        rows, reference=rows.reference[order], reference_class=rows.reference_class[order]
    )
