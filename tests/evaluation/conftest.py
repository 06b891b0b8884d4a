"""A small pack, a protocol on it and a network, written without the packer or any training."""

import hashlib
import io
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from model.network import ModelConfig, build_network
from runtime import checkpoint
from sharding.index import write_index
from sharding.manifest import Manifest, ShardInfo

CLASSES = ("ball", "cone", "cube", "ring")
DOMAINS = ("ink", "photo")
PER_CELL = 7
MODEL = {"backbone": "resnet10t", "embed_dim": 24, "depth": 2, "num_heads": 3}


def write_pack(folder: Path, *, per_cell: int = PER_CELL, seed: int = 0) -> Path:
    """A pack of ``per_cell`` noisy images for each domain and class, in one shard."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    columns: dict[str, list] = {
        name: []
        for name in [
            "key",
            "shard",
            "offset",
            "size",
            "label",
            "domain",
            "split",
            "width",
            "height",
            "crc32",
            "mean_r",
            "mean_g",
            "mean_b",
            "source",
        ]
    }
    shard = folder / "shard-000000.tar"
    with tarfile.open(shard, "w", format=tarfile.GNU_FORMAT) as tar:
        for number in range(len(DOMAINS) * len(CLASSES) * per_cell):
            cell = number // per_cell
            domain, label = divmod(cell, len(CLASSES))
            pixels = generator.integers(0, 60, (40 + label, 48, 3))
            pixels[:, label * 12 : label * 12 + 12, domain] += 150
            stream = io.BytesIO()
            Image.fromarray(pixels.astype(np.uint8)).save(stream, "JPEG")
            data = stream.getvalue()
            member = tarfile.TarInfo(f"{number:06d}.jpg")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
            row = (
                f"{number:06d}", 0, tar.offset - -(-len(data) // 512) * 512, len(data), label,
                domain, 0, 48, 40 + label, zlib.crc32(data), 0, 0, 0,
                f"{DOMAINS[domain]}/{CLASSES[label]}/{number:06d}.jpg",
            )  # fmt: skip
            for column, value in zip(columns.values(), row, strict=True):
                column.append(value)
    write_index(folder, [columns])
    size = shard.stat().st_size
    sha256 = hashlib.sha256(shard.read_bytes()).hexdigest()
    samples = len(columns["key"])
    Manifest(
        "shapes", CLASSES, DOMAINS, ("all",), {}, samples, size, 0,
        (ShardInfo(shard.name, samples, size, sha256),),
    ).save(folder)  # fmt: skip
    return folder


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Small tensors are slower on several threads, much slower where the cores are shared."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def pack_folder(tmp_path_factory) -> Path:
    return write_pack(tmp_path_factory.mktemp("packs") / "shapes")


@pytest.fixture(scope="session")
def protocol_file(tmp_path_factory) -> Path:
    """Known: ball, cone, cube. Target ink has photo references, photo has ink references."""
    path = tmp_path_factory.mktemp("protocols") / "shapes.yaml"
    known = ["cube", "ball", "cone"]
    targets = {
        target: {
            "reference": [{"domains": [other], "classes": known}],
            "test": [{"domains": [target]}],
        }
        for target, other in (("ink", "photo"), ("photo", "ink"))
    }
    content = {"name": "Shapes", "dataset": "shapes", "known": known, "targets": targets}
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory) -> Path:
    """A run with one checkpoint of a small network with random weights."""
    run = tmp_path_factory.mktemp("runs") / "run"
    torch.manual_seed(0)
    network = build_network(ModelConfig(**MODEL))
    for parameter in network.relation.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    config = {"model": MODEL, "input": {"image_size": 48}}
    checkpoint.save(run, 1, weights=network.state_dict(), config=config, metrics={})
    return run
