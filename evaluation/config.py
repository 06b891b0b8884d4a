"""Configuration of an evaluation; importing it loads nothing slow."""

from dataclasses import dataclass

DEFAULT_EVALUATORS = ("relation-softmax", "relation-logit", "cosine")
RESAMPLES = 1000

# Images per batch and process through the backbone; larger ones leave a CPU's caches.
BATCH_SIZE = {"cpu": 8, "cuda": 256}


@dataclass(frozen=True)
class ReferenceConfig:
    """Which of a protocol's references are used.

    Attributes:
        shots: references drawn for each class; 0 takes all.
        seed: random seed of the draw, which restarts for each class.
        replacement: draw with replacement, as published few-shot numbers were.
        minimum: a class with fewer references in the protocol is refused.
    """

    shots: int = 0
    seed: int = 0
    replacement: bool = False
    minimum: int = 2
