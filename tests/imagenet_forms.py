"""Imitations of ImageNet in the forms in which it is published, all with the same images: one
training image of each synset, and a few validation images."""

import gzip
import io
import json
import tarfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet
from scipy.io import savemat

from sharding.sources.imagenet.synsets import ILSVRC2012

VAL_SYNSETS = [ILSVRC2012[(number * 37) % 1000] for number in range(12)]
"""The synset of validation image 1, 2, …"""


@cache
def jpeg(seed: int) -> bytes:
    """A small image of its own for each ``seed``."""
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "JPEG")
    return encoded.getvalue()


TRAIN = {
    (synset, f"{synset}_{label * 13 % 97}"): jpeg(label) for label, synset in enumerate(ILSVRC2012)
}
VAL = {
    f"ILSVRC2012_val_{number:08d}": jpeg(5000 + number) for number in range(1, len(VAL_SYNSETS) + 1)
}


def tar(members: Iterable[tuple[str, bytes]]) -> bytes:
    """A tar archive of files."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.GNU_FORMAT) as writer:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            writer.addfile(entry, io.BytesIO(content))
    return archive.getvalue()


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def make_kaggle(root: Path) -> None:
    for (synset, image), content in TRAIN.items():
        write(root / "Data" / "CLS-LOC" / "train" / synset / f"{image}.JPEG", content)
    lines = ["ImageId,PredictionString"]
    for (image, content), synset in zip(VAL.items(), VAL_SYNSETS):
        write(root / "Data" / "CLS-LOC" / "val" / f"{image}.JPEG", content)
        lines.append(f"{image},{synset} 1 2 3 4")
    (root / "LOC_val_solution.csv").write_text("\n".join(lines) + "\n")


def make_torchvision(root: Path) -> None:
    for (synset, image), content in TRAIN.items():
        write(root / "train" / synset / f"{image}.JPEG", content)
        (root / "val" / synset).mkdir(parents=True)
    for (image, content), synset in zip(VAL.items(), VAL_SYNSETS):
        write(root / "val" / synset / f"{image}.JPEG", content)


def synset_tar(synset: str) -> bytes:
    return tar((f"{name}.JPEG", content) for (of, name), content in TRAIN.items() if of == synset)


def devkit(ids: Iterable[int] | None = None) -> dict[str, bytes]:
    """The kit's files: synsets numbered against their order, and an inner node of the hierarchy."""
    id_of = {synset: 1000 - label for label, synset in enumerate(ILSVRC2012)}
    kind = [
        ("ILSVRC2012_ID", object),
        ("WNID", object),
        ("words", object),
        ("num_children", object),
        ("children", object),
    ]
    synsets = np.empty((1001, 1), dtype=kind)
    for row, (synset, number) in enumerate(id_of.items()):
        synsets[row, 0] = (number, synset, "some, words", 0, [])
    synsets[1000, 0] = (1001, "n00001740", "entity", 2, [1, 2])
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets}, do_compression=True)
    if ids is None:
        ids = [id_of[synset] for synset in VAL_SYNSETS]
    return {
        "data/meta.mat": meta.getvalue(),
        "data/ILSVRC2012_validation_ground_truth.txt": "".join(f"{n}\n" for n in ids).encode(),
    }


def devkit_archive(files: dict[str, bytes]) -> bytes:
    return gzip.compress(
        tar((f"ILSVRC2012_devkit_t12/{name}", content) for name, content in files.items())
    )


@cache
def train_tar() -> bytes:
    return tar((f"{synset}.tar", synset_tar(synset)) for synset in ILSVRC2012)


def val_tar() -> bytes:
    return tar((f"{image}.JPEG", VAL[image]) for image in sorted(VAL, reverse=True))


def make_tars(root: Path) -> None:
    write(root / "ILSVRC2012_img_train.tar", train_tar())
    write(root / "ILSVRC2012_img_val.tar", val_tar())
    write(root / "ILSVRC2012_devkit_t12.tar.gz", devkit_archive(devkit()))


def make_synset_tars(root: Path, synsets: Iterable[str] = ILSVRC2012) -> None:
    for synset in synsets:
        write(root / f"{synset}.tar", synset_tar(synset))


def make_archives(root: Path) -> None:
    """As Hugging Face has them, in no order of the synsets."""
    images = sorted(TRAIN.items(), key=lambda item: item[0][1][::-1])
    for number in range(5):
        part = ((f"{n}_{synset}.JPEG", content) for (synset, n), content in images[number::5])
        write(root / "data" / f"train_images_{number}.tar.gz", gzip.compress(tar(part), 1))
    val = (
        (f"{image}_{synset}.JPEG", content)
        for (image, content), synset in zip(VAL.items(), VAL_SYNSETS)
    )
    write(root / "data" / "val_images.tar.gz", gzip.compress(tar(val)))
    write(root / "data" / "test_images.tar.gz", gzip.compress(tar([("t.JPEG", jpeg(1))])))


def make_parquet(root: Path) -> None:
    label_of = {synset: label for label, synset in enumerate(ILSVRC2012)}
    train = [(f"{name}_{of}", content, of) for (of, name), content in TRAIN.items()]
    val = [(f"{name}_{of}", VAL[name], of) for name, of in zip(VAL, VAL_SYNSETS)]
    (root / "data").mkdir(parents=True)
    for split, rows, count in (("train", train, 3), ("validation", val, 1), ("test", val, 1)):
        for number in range(count):
            part = rows[number::count]
            images = [{"bytes": content, "path": f"{name}.JPEG"} for name, content, _ in part]
            labels = [-1 if split == "test" else label_of[of] for *_, of in part]
            parquet.write_table(
                pa.table({"image": images, "label": labels}),
                root / "data" / f"{split}-{number:05d}-of-{count:05d}.parquet",
                row_group_size=100,
            )


def make_webdataset(root: Path) -> None:
    label_of = {synset: label for label, synset in enumerate(ILSVRC2012)}
    train = [(name, content, label_of[of]) for (of, name), content in TRAIN.items()]
    val = [(name, VAL[name], label_of[of]) for name, of in zip(VAL, VAL_SYNSETS)]
    for split, samples, count in (("train", train, 2), ("validation", val, 1)):
        for number in range(count):
            members = []
            for name, content, label in samples[number::count]:
                about = json.dumps({"label": label, "filename": f"{name}.JPEG"}).encode()
                members += [(f"{name}.jpg", content), (f"{name}.cls", b"%d" % label)]
                members += [(f"{name}.json", about)]
            write(root / f"imagenet1k-{split}-{number:04d}.tar", tar(members))


MAKERS = {
    "kaggle": make_kaggle,
    "torchvision": make_torchvision,
    "tars": make_tars,
    "archives": make_archives,
    "parquet": make_parquet,
    "webdataset": make_webdataset,
}
