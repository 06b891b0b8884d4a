"""The original's way, written once: transforms, data sets, training step, and evaluation.

Images are opened with Pillow and transformed with torchvision, one by one, in the worker processes
of a DataLoader. Importing it loads neither DALI nor timm, because the memory of a process that
loads images this way is measured.
"""

import io
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from model.prototypes import class_means
from pipelines.config import AugmentConfig

if TYPE_CHECKING:
    from evaluation.protocol import ProtocolRows
    from model.network import ReSeND
    from model.relation import RelationalTransformer
    from pipelines.pack import Pack

_REFERENCE_BATCH = 64
_PROTOTYPE_BATCH = 256

Transform = Callable[[Image.Image], Tensor]


def augmenting_transform(augment: AugmentConfig, image_size: int) -> Transform:
    """The training transform: RGB image -> float32 (3, S, S), normalized."""
    jitter = transforms.ColorJitter(
        augment.brightness, augment.contrast, augment.saturation, augment.hue
    )
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(image_size, scale=augment.scale, ratio=augment.ratio),
            transforms.RandomHorizontalFlip(augment.flip),
            transforms.RandomApply([jitter], augment.jitter),
            transforms.RandomGrayscale(augment.grayscale),
            *_to_normalized_tensor(),
        ]
    )


def squashing_transform(image_size: int) -> Transform:
    """The evaluation transform: RGB image -> float32 (3, S, S), normalized."""
    return transforms.Compose(
        [transforms.Resize((image_size, image_size)), *_to_normalized_tensor()]
    )


def _to_normalized_tensor() -> list[Any]:
    return [
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]


def decode(content: bytes, transform: Transform) -> Tensor:
    """The transformed image, float32 (3, S, S), of an encoded one."""
    return transform(Image.open(io.BytesIO(content)).convert("RGB"))


class PairImages(Dataset):
    """Pairs of images as (anchor, partner, 1.0 where their classes differ).

    Args:
        read: gives the encoded anchor, the encoded partner and whether they differ, by number.
        length: how many pairs there are.
        transform: applied to each image.
    """

    def __init__(
        self, read: Callable[[int], tuple[bytes, bytes, bool]], length: int, transform: Transform
    ) -> None:
        self._read, self._length, self._transform = read, length, transform

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor, float]:
        anchor, partner, different = self._read(number)
        images = (decode(content, self._transform) for content in (anchor, partner))
        return (*images, float(different))  # type: ignore[return-value]


class PackImages(Dataset):
    """Images of the ``rows``, int64 (N,), of a pack, squashed for evaluation."""

    def __init__(self, pack: "Pack", rows: np.ndarray, image_size: int) -> None:
        self._pack, self._rows = pack, rows
        self._transform = squashing_transform(image_size)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> Tensor:
        (content,) = self._pack.read(self._rows[[number]])
        return decode(content.tobytes(), self._transform)


def training_step(
    network: "ReSeND",
    optimizer: torch.optim.Optimizer,
    objective: Callable[[Tensor, Tensor], Tensor],
    loader: DataLoader,
    device: torch.device,
) -> Callable[[], None]:
    """The original's step: float32, backbone and relational module each in a
    DistributedDataParallel of its own with find_unused_parameters, anomaly detection, and the loss
    read on the host. Needs an initialized process group.
    """
    backbone = DistributedDataParallel(network.backbone, find_unused_parameters=True)
    relation = DistributedDataParallel(network.relation, find_unused_parameters=True)
    batches = _endless(loader)

    def step() -> None:
        anchors, partners, different = next(batches)
        optimizer.zero_grad()
        with torch.autograd.set_detect_anomaly(True):
            images = torch.cat([anchors, partners]).to(device)
            logits = relation(*backbone(images).chunk(2))
            loss = objective(logits, different.to(device) > 0)
            loss.backward()
        nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None])
        optimizer.step()
        loss.item()

    return step


def _endless(loader: DataLoader) -> Iterator[Any]:
    while True:
        yield from loader


def evaluate_target(
    network: "ReSeND", pack: "Pack", rows: "ProtocolRows", image_size: int, workers: int
) -> Tensor:
    """Logits (T, K) of a target's T test images, decoded and scored one by one, against the K
    class means of its references."""
    device = next(network.parameters()).device
    backbone = network.backbone.to(memory_format=torch.contiguous_format)

    def features(chosen: np.ndarray, batch_size: int) -> Iterator[Tensor]:
        images = PackImages(pack, chosen, image_size)
        for batch in DataLoader(images, batch_size=batch_size, num_workers=workers):
            with torch.no_grad():
                yield backbone(batch.to(device))

    references = torch.cat(list(features(rows.reference, _REFERENCE_BATCH)))
    classes = torch.from_numpy(rows.reference_class).to(device)
    prototypes = class_means(references, classes, int(rows.reference_class.max()) + 1)
    return torch.cat(
        [score(network.relation, feature, prototypes) for feature in features(rows.test, 1)]
    )


def score(relation: "RelationalTransformer", tests: Tensor, prototypes: Tensor) -> Tensor:
    """Logits, float32 (T, K) on the host, of ``tests`` (T, D) against ``prototypes`` (K, D): one
    test at a time, prototypes in batches of 256, attention maps kept, each batch's logits copied
    to the host."""
    rows = []
    with torch.no_grad():
        for test in tests:
            found = []
            for batch in prototypes.split(_PROTOTYPE_BATCH):
                pair = relation.proj(torch.stack((test.expand_as(batch), batch), dim=1))
                x = torch.cat((relation.cls_token.expand(len(batch), -1, -1), pair), dim=1)
                maps = []
                for block in relation.blocks:
                    x, attention = _with_attention(block, x)
                    maps.append(attention)
                found.append(relation.head(relation.norm(x)[:, 0])[:, 0].cpu().numpy())
            rows.append(np.concatenate(found))
    return torch.from_numpy(np.stack(rows))


def _with_attention(block: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    heads = block.attn.num_heads
    q, k, v = block.attn.qkv(block.norm1(x)).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    attention = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1)
    x = x + block.attn.proj((attention @ v).transpose(1, 2).flatten(2))
    return x + block.mlp(block.norm2(x)), attention
