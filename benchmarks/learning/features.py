"""The backbone as it was published, and its features of all images, which are kept."""

import tarfile
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from evaluation.cache import FeatureCache
from evaluation.config import BATCH_SIZE
from evaluation.extractor import ExtractionConfig, FeatureExtractor
from evaluation.trained import TrainedNetwork, backbone_sha256
from model.backbone import backbone_preprocessing, create_backbone, for_inference
from model.config import Preprocessing
from model.network import BareBackbone, ReSeND
from pipelines.config import InputConfig
from pipelines.pack import Pack
from runtime.distributed import Process
from runtime.weights import load_backbone
from sharding.__main__ import main as sharding


@dataclass(frozen=True)
class Source:
    """Where everything starts.

    Attributes:
        backbone: its name in timm.
        weights: the file of its weights.
        pack: the images.
        cache: folder of pack and features.
        process: this process.
    """

    backbone: str
    weights: Path
    pack: Pack
    cache: Path
    process: Process

    def preprocessing(self, image_size: int | None) -> Preprocessing:
        """The backbone's own, for its own image size or another one, but without a crop, as in the
        paper: small images have little to spare."""
        own = backbone_preprocessing(self.backbone)
        size = own.image_size if image_size is None else image_size
        return replace(own, image_size=size, crop_mode="squash", crop_pct=1.0)

    def extractor(self, image_size: int | None = None) -> FeatureExtractor:
        """Of the published backbone; it keeps the features in the cache."""
        preprocessing = self.preprocessing(image_size)
        backbone = create_backbone(self.backbone, image_size=preprocessing.image_size)
        load_backbone(backbone, self.weights)
        network = BareBackbone(backbone, preprocessing)
        cache = FeatureCache(self.cache, backbone_sha256(self.backbone, network.state_dict()))
        return extractor_of(network, self.pack, self.process, cache)


def extractor_of(
    network: ReSeND | BareBackbone, pack: Pack, process: Process, cache: FeatureCache | None = None
) -> FeatureExtractor:
    """The extractor of ``network``, from now on in evaluation mode and without gradients."""
    network.requires_grad_(False).eval().to(process.device).to(memory_format=torch.channels_last)
    return FeatureExtractor(
        TrainedNetwork(
            network, for_inference(network.backbone).to(memory_format=torch.channels_last)
        ),
        pack,
        process,
        ExtractionConfig(InputConfig(), BATCH_SIZE[process.device.type]),
        cache,
    )


def pack_of(images: Path, folder: Path) -> Pack:
    """The pack of the tar ``images``, which is made in ``folder`` where it is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
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
