"""Alterations of the newest step folder of a run, or of the run around it."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from alterations import FOUND, GOOD, REFUSED, Registry, expect
from safetensors.torch import load_file, save_file

from tests.common import flip

WEIGHTS, CONFIG, METRICS, TRAINING = (
    "weights.safetensors",
    "config.yaml",
    "metrics.json",
    "training.pt",
)
FILES = (WEIGHTS, CONFIG, METRICS, TRAINING)

CHECKPOINTS = Registry()  # of one of the FILES, which a forger can seal again
BOMBS = Registry()  # of the FILES too, but slow to make

EITHER = (GOOD, REFUSED)
HARMLESS = expect(EITHER)
UNREADABLE = expect([REFUSED])
# Who only takes the backbone from it need not see what is wrong with the rest.
UNUSABLE = expect([REFUSED], warm=EITHER)
UNUSABLE_FOR_TRAINING = expect(EITHER, resume=[REFUSED])
DIVERGED = expect([REFUSED], warm=EITHER, resume=[FOUND, REFUSED])
FORGED = expect(EITHER, results=False)  # nobody can tell


def _weights(change: Callable[[dict[str, torch.Tensor]], Any], step: Path) -> None:
    tensors = load_file(step / WEIGHTS)
    change(tensors)
    save_file(tensors, step / WEIGHTS)


def _training(change: Callable[[dict[str, Any]], Any], step: Path) -> None:
    content = torch.load(step / TRAINING, weights_only=True)
    replaced = change(content)
    torch.save(content if replaced is None else replaced, step / TRAINING)


def _config(change: Callable[[dict[str, Any]], Any], step: Path) -> None:
    content = yaml.safe_load((step / CONFIG).read_text())
    change(content)
    (step / CONFIG).write_text(yaml.safe_dump(content))


def _write(name: str, content: bytes, step: Path) -> None:
    (step / name).write_bytes(content)


def _flip(name: str, share: float, step: Path) -> None:
    flip(step / name, int(share * (step / name).stat().st_size), 6)


for file in FILES:
    for share in (0.0, 0.3, 0.6, 0.99):
        slug = f"a-bit-of-{file}-is-flipped-at-{share:.0%}".replace("%", "-percent")
        CHECKPOINTS.add(slug, FORGED, partial(_flip, file, share))


def _first(tensors: dict[str, torch.Tensor]) -> str:
    return next(name for name in sorted(tensors) if name.startswith("relation."))


def _fill(value: float, count: int, tensors: dict[str, torch.Tensor]) -> None:
    tensors[_first(tensors)].view(-1)[:count] = value


def _replace(make: Callable[[torch.Tensor], torch.Tensor], tensors: dict) -> None:
    name = _first(tensors)
    tensors[name] = make(tensors[name]).contiguous()


def _drop_relation(tensors: dict[str, torch.Tensor]) -> None:
    for name in list(tensors):
        if name.startswith("relation."):
            del tensors[name]


for slug, expectation, change in (
    ("have-a-nan", DIVERGED, partial(_fill, float("nan"), 1)),
    ("are-partly-infinite", DIVERGED, partial(_fill, float("inf"), 20)),
    ("lack-a-tensor", UNUSABLE, lambda tensors: tensors.pop(_first(tensors))),
    ("have-a-tensor-too-many", UNUSABLE, lambda tensors: tensors.update(more=torch.zeros(3))),
    ("have-a-tensor-of-another-shape", UNUSABLE, partial(_replace, lambda old: old[None])),
    ("have-a-tensor-of-no-elements", UNUSABLE, partial(_replace, lambda old: old[:0])),
    ("have-a-tensor-of-integers", UNUSABLE, partial(_replace, lambda old: old.to(torch.int8))),
    (
        "have-a-name-of-two-lines-and-an-escape",
        UNUSABLE,
        lambda tensors: tensors.update({"relation.\x1b[2J\nerror: all is well": torch.zeros(1)}),
    ),
    ("are-of-the-backbone-alone", UNUSABLE, _drop_relation),
    ("are-none", UNREADABLE, lambda tensors: tensors.clear()),
):
    CHECKPOINTS.add(f"weights-{slug}", expectation, partial(_weights, change))


def _header(change: Callable[[dict[str, Any]], Any], step: Path) -> None:
    """Change the JSON at the start of a safetensors file."""
    content = (step / WEIGHTS).read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    (step / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])


def _tensor(header: dict[str, Any]) -> dict[str, Any]:
    return next(value for name, value in header.items() if name != "__metadata__")


for slug, values in {
    "says-an-offset-beyond-its-end": {"data_offsets": [0, 2**40]},
    "says-a-negative-offset": {"data_offsets": [-8, 8]},
    "says-a-shape-of-2-to-62": {"shape": [2**62]},
    "says-an-unknown-type": {"dtype": "F3"},
}.items():
    change = partial(lambda new, header: _tensor(header).update(new), values)
    CHECKPOINTS.add(f"header-of-weights-{slug}", UNREADABLE, partial(_header, change))

for slug, content in {
    "is-of-2-to-60-bytes": (2**60).to_bytes(8, "little") + bytes(100),
    "is-nested-too-deeply": (500_000).to_bytes(8, "little") + b'{"a":' * 100_000,
}.items():
    name = f"header-of-weights-{slug}"
    CHECKPOINTS.add(name, UNREADABLE, partial(_write, WEIGHTS, content))


class _Executed:
    """Unpickling it would write a file."""

    def __init__(self, step: Path) -> None:
        self._path = str(step.parents[1] / "executed")

    def __reduce__(self) -> tuple:
        return (open, (self._path, "w"))


@CHECKPOINTS(UNREADABLE)
def weights_are_a_pickle_that_executes_code(step: Path) -> None:
    _write(WEIGHTS, pickle.dumps(_Executed(step)), step)


@CHECKPOINTS(UNUSABLE_FOR_TRAINING)
def training_state_is_a_pickle_that_executes_code(step: Path) -> None:
    _write(TRAINING, pickle.dumps(_Executed(step)), step)


@CHECKPOINTS(UNUSABLE_FOR_TRAINING)
def training_state_holds_an_object_that_executes_code(step: Path) -> None:
    content = torch.load(step / TRAINING, weights_only=True)
    torch.save({**content, "more": _Executed(step)}, step / TRAINING)


def _momentum(content: dict[str, Any]) -> dict[str, Any]:
    return next(iter(content["optimizer"]["state"].values()))


def _set_momentum(value: Any, content: dict[str, Any]) -> None:
    _momentum(content)["momentum_buffer"] = value


def _set_optimizer(values: dict[str, Any], content: dict[str, Any]) -> None:
    content["optimizer"].update(values)


for slug, change in (
    ("is-a-list", lambda content: [content]),
    ("is-a-number", lambda content: 3),
    ("is-empty", lambda content: {}),
    ("has-null-for-the-optimizer", lambda content: {**content, "optimizer": None}),
    ("has-a-word-for-the-optimizer", lambda content: {**content, "optimizer": "sgd"}),
    ("has-no-groups", partial(_set_optimizer, {"param_groups": []})),
    ("has-groups-of-words", partial(_set_optimizer, {"param_groups": ["a", "b"]})),
    ("has-a-list-of-moments", partial(_set_optimizer, {"state": [1, 2]})),
    ("has-a-momentum-of-another-shape", partial(_set_momentum, torch.zeros(3, 3, 3))),
    ("has-a-momentum-of-2-to-31-elements", partial(_set_momentum, torch.zeros(1).expand(2**31))),
    ("has-a-word-for-a-momentum", partial(_set_momentum, "fast")),
    ("is-of-another-pack", lambda content: {**content, "pack": "0" * 64}),
):
    name = f"training-state-{slug}"
    CHECKPOINTS.add(name, UNUSABLE_FOR_TRAINING, partial(_training, change))


@CHECKPOINTS(expect(EITHER, resume=[FOUND, REFUSED]))
def training_state_has_a_momentum_of_nan(step: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        _momentum(content)["momentum_buffer"].fill_(torch.nan)

    _training(change, step)


@CHECKPOINTS(UNUSABLE_FOR_TRAINING)
def training_state_is_a_zip_of_nothing(step: Path) -> None:
    file = io.BytesIO()
    zipfile.ZipFile(file, "w").close()
    _write(TRAINING, file.getvalue(), step)


@BOMBS(UNUSABLE_FOR_TRAINING)
def training_state_is_a_zip_bomb(step: Path) -> None:
    """Its first tensor is 3 GiB of zeros that take 3 MB."""
    tensor = torch.zeros(1 << 10)
    file = io.BytesIO()
    torch.save({"optimizer": {"state": {0: {"momentum_buffer": tensor}}}}, file)
    with (
        zipfile.ZipFile(file) as small,
        zipfile.ZipFile(step / TRAINING, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as bomb,
    ):
        for name in small.namelist():
            if "/data/" not in name:
                content = small.read(name)
                # 1,024 elements become 805,306,368: three gigabytes of float32
                bomb.writestr(name, content.replace(b"M\x00\x04", b"J\x00\x00\x00\x30"))
                continue
            with bomb.open(name, "w", force_zip64=True) as entry:
                for _ in range(3 << 6):
                    entry.write(bytes(1 << 24))


for slug, content in {
    "is-a-list": b"[1, 2]",
    "is-a-number": b"7",
    "is-a-word": b"config",
    "is-null": b"null",
    "is-not-yaml": b"model: [",
    "is-undecodable": b"\xff\xfe\x80",
    "is-nested-too-deeply": b"[" * 50_000,
    "executes-code": b"model: !!python/object/apply:os.mkdir [executed]",
    "has-a-list-as-a-key": b"? [1, 2]\n: 3\n",
}.items():
    CHECKPOINTS.add(f"config-{slug}", UNUSABLE, partial(_write, CONFIG, content))

for group, name, slug, value in (
    ("model", "backbone", "unknown", "resnet0"),
    ("model", "backbone", "a-number", 5),
    ("model", "backbone", "a-path", "../../etc/passwd"),
    ("model", "backbone", "of-billions-of-weights", "vit_giant_patch14_224"),
    ("model", "backbone", "on-a-hub", "hf_hub:someone/something"),
    ("model", "embed_dim", "a-word", "wide"),
    ("model", "embed_dim", "negative", -16),
    ("model", "embed_dim", "a-billion", 10**9),
    ("model", "depth", "negative", -1),
    ("model", "depth", "a-fraction", 1.5),
    ("model", "num_heads", "zero", 0),
    ("model", "head", "unknown", "round"),
    ("model", "num_logits", "a-hundred-million", 10**8),
    ("input", "image_size", "a-word", "large"),
    ("input", "image_size", "negative", -32),
    ("input", "image_size", "a-million", 10**6),
    ("input", "image_size", "a-list", [32, 32]),
):
    CHECKPOINTS.add(
        f"{group}-{name}-in-config-is-{slug}",
        HARMLESS if group == "input" else UNUSABLE,
        partial(_config, lambda content, g=group, n=name, v=value: content[g].update({n: v})),
    )
for group, expectation in (("model", UNUSABLE), ("input", HARMLESS)):
    for slug, value in (("a-word", "small"), ("null", None), ("a-list", [])):
        CHECKPOINTS.add(
            f"{group}-in-config-is-{slug}",
            expectation,
            partial(_config, lambda content, g=group, v=value: content.update({g: v})),
        )


@CHECKPOINTS(HARMLESS)
def config_is_an_alias_bomb(step: Path) -> None:
    levels = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 12))
    text = (step / CONFIG).read_text()
    _write(CONFIG, f"{text}\nl0: &l0 [lol]\n{levels}\n".encode(), step)


for slug, content in {
    "are-a-list": b"[]",
    "are-null": b"null",
    "are-not-json": b"{",
    "are-undecodable": b"\xff\xfe",
    "are-nested-too-deeply": b"[" * 100_000,
    "are-words": b'{"step": "last", "auroc": "high"}',
    "are-nan": b'{"step": NaN, "auroc": NaN}',
    "are-huge": b'{"step": 2, "auroc": 1' + b"0" * 5000 + b"}",
}.items():
    CHECKPOINTS.add(f"metrics-{slug}", HARMLESS, partial(_write, METRICS, content))
