"""``detector.json``: what a detector's folder holds, checked before anything of it is used."""

import hashlib
import importlib.metadata
import json
import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nvidia import dali

from evaluation.detectors.detector import KnownClass, NetworkOrigin, Rule, Threshold
from model.config import BASELINES, RELATIONAL, EvaluatorOptions, Preprocessing
from model.errors import ModelError
from sharding.format.files import MalformedError
from sharding.format.strict_json import (
    MAX_NAME,
    exact_keys,
    integer,
    names,
    parse,
    sha256,
    text,
)

FORMAT = 1
MAX_BYTES = 64 * 2**20  # 100,000 classes take 10 to 20 MB
_MAX_CLASSES = 10**6
_MAX_COUNT = 2**50
_MAX_TEXT = 4 * MAX_NAME
_LIBRARIES = ("torch", "timm")


@dataclass(frozen=True)
class StoredFile:
    """A file of the folder; ``kind`` is the beginning of its name."""

    kind: str
    bytes: int
    sha256: str

    @property
    def name(self) -> str:
        """The file's name in the folder."""
        return f"{self.kind}-{self.sha256[:16]}.safetensors"


@dataclass(frozen=True)
class DetectorRecord:
    """All of a detector but its tensors.

    Attributes:
        origin: where the network comes from.
        preprocessing: how an image becomes the network's input.
        rule: how images are compared; its whitening map, if any, is with the references.
        classes: the known classes.
        only_means: whether the folder holds class means in place of references.
        threshold: from which normality on an image is known.
        weights: the file of the network.
        references: the file of the references.
    """

    origin: NetworkOrigin
    preprocessing: Preprocessing
    rule: Rule
    classes: tuple[KnownClass, ...]
    only_means: bool
    threshold: Threshold
    weights: StoredFile
    references: StoredFile


def record_content(record: DetectorRecord) -> bytes:
    """The record as JSON."""
    options = record.rule.options
    fields = {
        "format": FORMAT,
        "network": asdict(record.origin),
        "preprocessing": asdict(record.preprocessing),
        "evaluator": record.rule.evaluator,
        "options": {"significant": options.significant, "neighbors": options.neighbors},
        "classes": [asdict(known) for known in record.classes],
        "only_means": record.only_means,
        "threshold": asdict(record.threshold),
        "files": {
            file.kind: {"bytes": file.bytes, "sha256": file.sha256}
            for file in (record.weights, record.references)
        },
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _LIBRARIES},
            "nvidia-dali": dali.__version__,
        },
    }
    return (json.dumps({**fields, "sha256": _own_sha256(fields)}, indent=1) + "\n").encode()


def parse_record(content: bytes) -> DetectorRecord:
    """The record in ``content``.

    Raises:
        MalformedError: it is of a newer format, was altered, or holds something else.
    """
    fields = parse(content)
    version = integer(fields.get("format"), "format", 1, _MAX_COUNT)
    if version > FORMAT:
        raise MalformedError(
            f"its format is {version} and this version of the program reads up to {FORMAT}; use a "
            "newer version"
        )
    if fields.pop("sha256", None) != _own_sha256(fields):
        raise MalformedError("it was altered: it does not have the sha256 that it states")
    keys = {"format", "network", "preprocessing", "evaluator", "options", "classes"}
    exact_keys(fields, keys | {"only_means", "threshold", "files", "versions"}, "it")
    if fields["evaluator"] not in RELATIONAL + BASELINES:
        raise MalformedError(f"its evaluator {fields['evaluator']!a:.80} does not exist")
    options = fields["options"]
    exact_keys(options, {"significant", "neighbors"}, "options")
    evaluator_options = EvaluatorOptions(
        significant=integer(options["significant"], "significant", 1, _MAX_COUNT),
        neighbors=integer(options["neighbors"], "neighbors", 1, _MAX_COUNT),
    )
    try:
        preprocessing = Preprocessing.of_checkpoint({"input": fields["preprocessing"]})
    except ModelError as error:
        raise MalformedError(f"preprocessing: {error}") from error
    exact_keys(fields["files"], {"weights", "references"}, "files")
    return DetectorRecord(
        origin=_origin(fields["network"]),
        preprocessing=preprocessing,
        rule=Rule(fields["evaluator"], evaluator_options),
        classes=_classes(fields["classes"]),
        only_means=_boolean(fields["only_means"], "only_means"),
        threshold=_threshold(fields["threshold"]),
        weights=_file("weights", fields["files"]["weights"]),
        references=_file("references", fields["files"]["references"]),
    )


def _origin(value: Any) -> NetworkOrigin:
    exact_keys(value, NetworkOrigin.__dataclass_fields__.keys(), "network")
    path, step = value["path"], value["step"]
    if not isinstance(value["model"], dict):
        raise MalformedError("the network's model is not an object")
    return NetworkOrigin(
        model=value["model"],
        bare=_boolean(value["bare"], "bare"),
        path=None if path is None else text(path, "the network's path", _MAX_TEXT),
        step=None if step is None else integer(step, "step", 0, _MAX_COUNT),
        sha256=sha256(value["sha256"], "the network's sha256"),
    )


def _classes(value: Any) -> tuple[KnownClass, ...]:
    if not isinstance(value, list):
        raise MalformedError("classes is not a list")
    for entry in value:
        exact_keys(entry, KnownClass.__dataclass_fields__.keys(), "a class")
    called = names([entry["name"] for entry in value], "classes", _MAX_CLASSES)
    return tuple(
        KnownClass(
            name,
            integer(entry["images"], "images of a class", 1, _MAX_COUNT),
            text(entry["source"], "source of a class", _MAX_TEXT),
        )
        for name, entry in zip(called, value, strict=True)
    )


def _threshold(value: Any) -> Threshold:
    exact_keys(value, Threshold.__dataclass_fields__.keys(), "threshold")
    source = value["source"]
    return Threshold(
        value=_number(value["value"], "the threshold's value", -math.inf, math.inf),
        recall=_number(value["recall"], "recall", 0, 1),
        images=integer(value["images"], "the threshold's images", 1, _MAX_COUNT),
        source=None if source is None else text(source, "the threshold's source", _MAX_TEXT),
        held_out=_number(value["held_out"], "held_out", 0, 1),
    )


def _file(kind: str, value: Any) -> StoredFile:
    exact_keys(value, {"bytes", "sha256"}, f"the file of the {kind}")
    size = integer(value["bytes"], f"bytes of the {kind}", 1, _MAX_COUNT)
    return StoredFile(kind, size, sha256(value["sha256"], f"sha256 of the {kind}"))


def _boolean(value: Any, what: str) -> bool:
    if not isinstance(value, bool):
        raise MalformedError(f"{what} is neither true nor false")
    return value


def _number(value: Any, what: str, least: float, most: float) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or not least <= value <= most:
        raise MalformedError(f"{what} is not a number from {least} to {most}")
    return float(value)


def _own_sha256(fields: Mapping[str, Any]) -> str:
    """sha256 of the canonical JSON of ``fields``."""
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
