"""The training images from which whitened-cosine learns, none of which may be a test."""

from dataclasses import dataclass, replace

import numpy as np

from evaluation.extractor import FeatureExtractor
from evaluation.whitening import learn_whitening
from model.whitening import Whitening
from pipelines.pack import Pack
from runtime.errors import ConfigError


@dataclass(frozen=True)
class TrainingImages:
    """The images at ``rows`` of a pack."""

    pack: Pack
    rows: np.ndarray

    def whitening(self, extractor: FeatureExtractor) -> Whitening:
        """The whitening of the extractor's features of these images."""
        return learn_whitening(replace(extractor, pack=self.pack), self.rows)

    def check_apart(self, pack: Pack, tests: np.ndarray, where: str) -> None:
        """Raise ConfigError if one of these images is among the rows ``tests`` of ``pack``, of
        which one member may be their own pack; ``where`` says whose tests they are."""
        for member, first in zip(pack.members, pack.first_rows, strict=True):
            if member.manifest.fingerprint != self.pack.manifest.fingerprint:
                continue
            both = np.intersect1d(self.rows, tests - first)
            if len(both):
                raise ConfigError(
                    f"{len(both)} of the {len(self.rows)} images of --covariance-pack are tests of "
                    f"{where}, the first is {self.pack.keys(both[:1])[0]}; select training images "
                    "with --covariance-classes, --covariance-domains or --covariance-splits"
                )
