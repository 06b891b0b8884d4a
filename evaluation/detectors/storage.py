"""Detectors on disk.

DETECTOR/
  detector.json                   classes, evaluator, preprocessing, threshold, and where they come
                                  from; size and sha256 of the files below, and its own sha256
  weights-<sha256>.safetensors    the network
  references-<sha256>.safetensors features of the references, or class means; the whitening map

Files of tensors are named by their content and never change. ``detector.json`` is replaced last, in
one step, so at any moment the folder holds the old detector or the new one.
"""

import contextlib
import fcntl
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save as safetensors
from torch import Tensor

from evaluation.detectors.detector import Detector, StoredReferences
from evaluation.detectors.record import (
    MAX_BYTES,
    DetectorRecord,
    StoredFile,
    parse_record,
    record_content,
)
from evaluation.trained import TrainedNetwork, build_trained
from model.whitening import Whitening
from runtime.checkpoint import Checkpoint
from runtime.errors import CheckpointError, ConfigError, first_line
from runtime.files import file_sha256, open_regular, write_atomically
from runtime.tensor_files import read_safetensors
from sharding.format.files import MalformedError

RECORD = "detector.json"
_TENSORS = re.compile(r"(weights|references)-[0-9a-f]{16}\.safetensors")
_WHITENING = "whitening."


def check_out(folder: Path, overwrite: bool) -> None:
    """Raise ConfigError if a detector must not be written to ``folder``: it holds one and
    ``overwrite`` is not set, or it holds other files."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder; choose another --out")
    found = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if foreign := [name for name in found if name != RECORD and not _TENSORS.fullmatch(name)]:
        raise ConfigError(
            f"{folder} holds files other than a detector, such as {foreign[0]}; choose another "
            "--out"
        )
    if RECORD in found and not overwrite:
        raise ConfigError(f"{folder} holds a detector; choose another --out, or give --overwrite")


def save(detector: Detector, folder: Path) -> None:
    """Write ``detector`` to ``folder``; a detector that is there is replaced at the end.

    Raises:
        ConfigError: it cannot be written; a detector that was there stays.
    """
    network = detector.network.network
    references, options = detector.references, detector.rule.options
    tensors = {
        "features": references.features,
        "labels": references.labels,
        "held_out": references.held_out,
    }
    if options.whitening is not None:
        tensors |= _named(options.whitening.state_dict(), _WHITENING)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        record = DetectorRecord(
            origin=detector.origin,
            preprocessing=network.preprocessing,
            rule=detector.rule,
            classes=detector.classes,
            only_means=references.only_means,
            threshold=detector.threshold,
            weights=_write(folder, "weights", network.state_dict()),
            references=_write(folder, "references", tensors),
        )
        write_atomically(folder / RECORD, record_content(record))
        for path in folder.iterdir():
            used = path.name in (record.weights.name, record.references.name)
            if _TENSORS.fullmatch(path.name) and not used:
                path.unlink()
    except OSError as error:
        raise ConfigError(
            f"cannot write the detector {folder}: {first_line(error)}; a detector that was there "
            "is unchanged"
        ) from error


def load(folder: Path, device: torch.device) -> Detector:
    """The detector in ``folder``, on ``device``.

    Raises:
        CheckpointError: there is none, it is of a newer format, or a file was altered.
    """
    record = _read_record(folder)
    weights = _read(folder, record.weights)
    checkpoint = Checkpoint(
        path=folder,
        step=record.origin.step,
        weights=weights,
        config={
            "model": record.origin.model,
            "input": vars(record.preprocessing),
            "task": "classification" if record.origin.bare else "relation",
        },
        training={},
        verified=True,
    )
    network = build_trained(checkpoint, device)
    tensors = _read(folder, record.references)
    try:
        references = _references(record, tensors, network)
        whitening = _whitening(tensors, references.features.shape[1])
    except MalformedError as error:
        raise CheckpointError(f"cannot read {folder / record.references.name}: {error}") from error
    options = replace(
        record.rule.options, whitening=None if whitening is None else whitening.to(device)
    )
    return Detector(
        network=network,
        origin=record.origin,
        rule=replace(record.rule, options=options),
        classes=record.classes,
        references=references.to(device),
        threshold=record.threshold,
    )


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other commands from changing the detector in ``folder``; ConfigError if one does.

    The folder itself is locked, which leaves no file behind.
    """
    with contextlib.ExitStack() as stack:
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise _not_a_detector(folder, error) from error
        stack.callback(os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"another command is changing {folder}; wait for it") from error
        except OSError:  # a file system without locks, as some clusters mount theirs
            pass
        yield


def _write(folder: Path, kind: str, tensors: Mapping[str, Tensor]) -> StoredFile:
    """Write the file of ``tensors`` unless it is there."""
    content = safetensors({name: value.cpu().contiguous() for name, value in tensors.items()})
    file = StoredFile(kind, len(content), hashlib.sha256(content).hexdigest())
    write_atomically(folder / file.name, content)
    return file


def _read_record(folder: Path) -> DetectorRecord:
    path = folder / RECORD
    try:
        with open_regular(path, max_bytes=MAX_BYTES) as file:
            return parse_record(file.read())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _not_a_detector(folder, error) from error
    except (OSError, MalformedError) as error:
        raise CheckpointError(f"cannot read {path}: {first_line(error)}") from error


def _not_a_detector(folder: Path, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"{folder} is not a detector ({RECORD}: {first_line(error)}); fit one with "
        f"`python -m evaluation fit --out {folder}`"
    )


def _read(folder: Path, stored: StoredFile) -> dict[str, Tensor]:
    """The tensors of a file that has the size and the sha256 in the record."""
    path = folder / stored.name
    try:
        with open_regular(path, max_bytes=stored.bytes) as file:
            if file_sha256(file) != stored.sha256:
                raise ValueError("it was altered: it does not have the sha256 in " + RECORD)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {first_line(error)}") from error
    return read_safetensors(path)


def _references(
    record: DetectorRecord, tensors: Mapping[str, Tensor], network: TrainedNetwork
) -> StoredReferences:
    """The references among ``tensors``; MalformedError where they are not those of the record."""
    width = network.network.width
    features = _tensor(tensors, "features", torch.float32)
    if features.ndim != 2 or features.shape[1] != width or not features.isfinite().all():
        raise MalformedError(f"its features are not finite numbers of shape (R, {width})")
    labels, held_out = (
        _tensor(tensors, "labels", torch.int64),
        _tensor(tensors, "held_out", torch.bool),
    )
    if labels.shape != features.shape[:1] or held_out.shape != labels.shape:
        raise MalformedError("it has not one label for each reference")
    classes = list(range(len(record.classes)))
    if labels.unique().tolist() != classes:
        raise MalformedError("its labels are not those of the classes")
    if record.only_means and len(labels) != len(classes):
        raise MalformedError("it has not one mean for each class")
    if labels[~held_out].unique().tolist() != classes:
        raise MalformedError("all references of a class are held out")
    return StoredReferences(features, labels, held_out, record.only_means)


def _whitening(tensors: Mapping[str, Tensor], width: int) -> Whitening | None:
    """The whitening map among ``tensors``; None if there is none."""
    if not any(name.startswith(_WHITENING) for name in tensors):
        return None
    found = Whitening(width)
    for name, own in found.state_dict().items():
        value = _tensor(tensors, _WHITENING + name, torch.float32)
        if value.shape != own.shape or not value.isfinite().all():
            raise MalformedError(f"its whitening map is not of width {width}")
        own.copy_(value)
    return found


def _tensor(tensors: Mapping[str, Tensor], name: str, dtype: torch.dtype) -> Tensor:
    value = tensors.get(name)
    if value is None or value.dtype != dtype:
        raise MalformedError(f"it has no {name} of type {dtype}")
    return value


def _named(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in tensors.items()}
