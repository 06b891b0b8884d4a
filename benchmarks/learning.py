"""Semantic novelty on real images: distances between frozen features, on classes held out.

    python -m benchmarks.learning --images TAR --weights FILE [--cache FOLDER]

TAR holds `<class>/<image>` in any folder, such as 100 images of each class of Tiny-ImageNet; FILE
the weights of timm's `--backbone`. For each of `--splits` random splits of the classes, three
quarters are training classes, of which only the whitening sees the features; half of the rest are
known, with 20 references each, half unknown. All other images of the known and the unknown classes
are tests. Writes the AUROC of each distance, mean and standard deviation over the splits, as a
table. Images are packed and features computed once, in the cache's folder: about 10 minutes for
20,000 images on two cores.
"""

import argparse
import tarfile
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from benchmarks.harness import markdown_table
from evaluation.cache import FeatureCache
from evaluation.config import BATCH_SIZE
from evaluation.extractor import ExtractionConfig, FeatureExtractor
from evaluation.trained import Provenance, TrainedNetwork
from evaluation.whitening import learn_whitening
from model.backbone import backbone_preprocessing, for_inference
from model.config import EvaluatorOptions, ModelConfig
from model.evaluators import References, evaluate
from model.metrics import auroc
from model.network import ReSeND, build_network
from pipelines.config import InputConfig
from pipelines.pack import Pack
from runtime.checkpoint import Checkpoint
from runtime.distributed import Process, process_group
from runtime.precision import exact_float32
from runtime.weights import load_backbone
from sharding.__main__ import main as sharding

REFERENCES = 20  # of each known class
NEIGHBORS = 10
DISTANCES = ("cosine", "whitened-cosine", "euclidean", "mahalanobis", "knn", "knn-normalized")
ON_NORMALIZED = "mahalanobis"  # also measured on L2-normalized features


@dataclass(frozen=True)
class Split:
    """Rows of a pack, each int64 and ascending, and the known class, 0 .. K-1, of references.

    Attributes:
        training: images of the training classes.
        reference: references of the known classes.
        reference_class: the class of each.
        known: tests of the known classes.
        unknown: tests of the unknown classes.
    """

    training: np.ndarray
    reference: np.ndarray
    reference_class: np.ndarray
    known: np.ndarray
    unknown: np.ndarray


def split_classes(labels: np.ndarray, seed: int) -> Split:
    """A random split of the classes of ``labels``, int64 (N,), and of the known classes' images."""
    rng = np.random.default_rng(seed)
    classes = rng.permutation(np.unique(labels))
    num_training, num_known = len(classes) * 3 // 4, len(classes) // 8
    training, known, unknown = np.split(classes, [num_training, num_training + num_known])
    members = [rng.permutation(np.flatnonzero(labels == label)) for label in known]
    reference = np.sort(np.concatenate([rows[:REFERENCES] for rows in members]))
    return Split(
        training=np.flatnonzero(np.isin(labels, training)),
        reference=reference,
        reference_class=np.argsort(known)[np.searchsorted(np.sort(known), labels[reference])],
        known=np.sort(np.concatenate([rows[REFERENCES:] for rows in members])),
        unknown=np.flatnonzero(np.isin(labels, unknown)),
    )


def areas(extractor: FeatureExtractor, split: Split) -> dict[str, float]:
    """The AUROC of each distance on one split, by name."""
    tests = np.concatenate((split.known, split.unknown))
    features = extractor.extract(np.unique(np.concatenate((split.reference, tests)))).features
    is_known = np.arange(len(tests)) < len(split.known)
    classes = torch.from_numpy(split.reference_class)
    options = EvaluatorOptions(
        neighbors=NEIGHBORS, whitening=learn_whitening(extractor, split.training)
    )

    def measure(names: tuple[str, ...], known: torch.Tensor, images: torch.Tensor) -> list[float]:
        references = References(known, classes.to(known.device), int(classes.max()) + 1)
        relation = extractor.network.network.relation
        scores = evaluate(names, relation, references, images, options)
        return [auroc(is_known, scores[name].normality.cpu().numpy()) for name in names]

    known, images = features.of(split.reference), features.of(tests)
    found = dict(zip(DISTANCES, measure(DISTANCES, known, images), strict=True))
    directions = (functional.normalize(x, dim=1) for x in (known, images))
    (found[f"{ON_NORMALIZED}, normalized"],) = measure((ON_NORMALIZED,), *directions)
    return found


def pack_of(images: Path, folder: Path) -> Pack:
    """The pack of the tar ``images``, which is made in ``folder`` where it is not there yet."""
    path = folder / f"{images.stem}.pack"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder) as tree, tarfile.open(images) as archive:
            archive.extractall(tree, filter="data")
            root = Path(tree)
            while len(inside := list(root.iterdir())) == 1:
                root = inside[0]
            if sharding(["pack", "imagefolder", "--root", str(root), "--out", str(path)]):
                raise SystemExit(f"{images} cannot be packed")
    return Pack(path)


def frozen_network(backbone: str, weights: Path, device: torch.device) -> ReSeND:
    """The backbone and the smallest relation, which is not used.

    The preprocessing is the backbone's, but without a crop, as in the paper: small images have
    little to spare.
    """
    config = ModelConfig(backbone, embed_dim=8, depth=1, num_heads=1)
    preprocessing = replace(backbone_preprocessing(backbone), crop_mode="squash", crop_pct=1.0)
    network = build_network(config, preprocessing)
    load_backbone(network.backbone, weights)
    return network.requires_grad_(False).eval().to(device).to(memory_format=torch.channels_last)


def feature_extractor(options: argparse.Namespace, process: Process) -> FeatureExtractor:
    """The extractor of the features of all images, which keeps them in the cache's folder."""
    options.cache.mkdir(parents=True, exist_ok=True)
    network = frozen_network(options.backbone, options.weights, process.device)
    config = {"model": {"backbone": options.backbone}}
    sha256 = Provenance.of(
        Checkpoint(options.weights, None, network.state_dict(), config, {}, verified=False)
    ).backbone_sha256
    folded = for_inference(network.backbone).to(memory_format=torch.channels_last)
    return FeatureExtractor(
        TrainedNetwork(network, folded),
        pack_of(options.images, options.cache),
        process,
        ExtractionConfig(InputConfig(), BATCH_SIZE[process.device.type]),
        FeatureCache(options.cache, sha256),
    )


def document(found: list[dict[str, float]], pack: Pack, options: argparse.Namespace) -> str:
    """The table and the conditions under which it was made."""
    values = {name: np.array([areas[name] for areas in found]) for name in found[0]}
    ahead = {name: values[name] - values["cosine"] for name in values}
    rows = [
        (name, f"{v.mean():.3f} ± {v.std(ddof=1):.3f}", f"{ahead[name].mean():+.3f}")
        for name, v in values.items()
    ]
    return "\n".join(
        [
            "# Distances on real images",
            "",
            f"Made by `python -m benchmarks.learning` with the frozen features of "
            f"`{options.backbone}` (ImageNet weights), torch {torch.__version__}: "
            f"{len(pack.index):,} images of {len(pack.manifest.classes)} classes, "
            f"{options.splits} random splits of the classes into three quarters for training, "
            f"an eighth known with {REFERENCES} references each and an eighth unknown; k-NN with "
            f"k = {NEIGHBORS}. AUROC, "
            "known is the positive class: mean ± standard deviation over the splits, and the mean "
            "difference from cosine within a split. Nothing is trained; whitened-cosine learns "
            "its map from the training classes.",
            "",
            markdown_table(("distance", "AUROC", "difference from cosine"), rows),
            "",
        ]
    )


@exact_float32()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True, help="tar of <class>/<image>")
    parser.add_argument("--weights", type=Path, required=True, help="the backbone's weights")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0", help="its name in timm")
    parser.add_argument("--splits", type=int, default=5, help="random splits of the classes")
    parser.add_argument("--cache", type=Path, default=Path("runs/learning"), help="kept here")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/learning.md"))
    options = parser.parse_args()
    with process_group("auto") as process:
        extractor = feature_extractor(options, process)
        labels = extractor.pack.index.label
        extractor.extract(np.arange(len(labels)))
        found = [areas(extractor, split_classes(labels, seed)) for seed in range(options.splits)]
    text = document(found, extractor.pack, options)
    options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
