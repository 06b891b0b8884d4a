"""Few-shot reference sets: some of a protocol's references, drawn with a seed."""

from dataclasses import replace

import numpy as np

from evaluation.config import ReferenceConfig
from evaluation.protocol import ProtocolRows
from runtime.errors import PackError


def choose_references(rows: ProtocolRows, config: ReferenceConfig, seed: int) -> ProtocolRows:
    """``rows`` with the references that ``config`` selects; one drawn twice is there twice.

    Args:
        rows: of a target.
        config: how many are drawn, and how.
        seed: of the draw.

    Raises:
        PackError: a class has fewer references than ``min_references``, or than ``shots`` where
            they are drawn without replacement.
    """
    counts = np.bincount(rows.reference_class, minlength=len(rows.known))
    fewest = int(counts.argmin())
    has = f"class {rows.known[fewest]} has {counts[fewest]} reference image(s)"
    if counts[fewest] < config.min_references:
        raise PackError(
            f"{has}, fewer than {config.min_references}; add images, or lower --min-references"
        )
    if not config.shots:
        return rows
    if config.shots > counts[fewest] and not config.with_replacement:
        raise PackError(
            f"{has}, fewer than --shots {config.shots}; ask for fewer, or --with-replacement"
        )
    generator = np.random.default_rng(seed)  # one for all classes, as in the original
    drawn = np.concatenate(
        [
            generator.choice(
                np.flatnonzero(rows.reference_class == number),
                config.shots,
                replace=config.with_replacement,
            )
            for number in range(len(rows.known))
        ]
    )
    order = np.sort(drawn)
    return replace(
        rows, reference=rows.reference[order], reference_class=rows.reference_class[order]
    )
