"""Reading files of tensors that others may have written.

Only tensors and plain values are ever unpickled, and no file takes more memory than its size.
"""

import os
import pickletools
import re
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import load_file
from torch import Tensor

from runtime.errors import CheckpointError, first_line
from runtime.files import open_regular

# All that a pickle of tensors, mappings, lists and numbers refers to. torch.load(weights_only=True)
# also allows constructors that allocate as much memory as the pickle says, such as bytearray.
_HARMLESS = re.compile(
    r"collections OrderedDict"
    r"|torch\._utils _rebuild_(tensor|tensor_v2|parameter)"
    r"|torch(\.storage)? \w+Storage"
    r"|torch\.nn\.parameter Parameter"
    r"|torch (Size|device|bool|b?float\w+|u?int\d+|complex\d+)"
)
_MAX_OPCODES = 5_000_000
_ZIP_MAGIC = b"PK\x03\x04"
_LEGACY_PICKLES = 5  # magic number, protocol, system, the values, names of the storages


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file; CheckpointError where it is missing or damaged."""
    try:
        with open_regular(path, max_bytes=_memory()):
            return load_file(path)
    except Exception as error:  # the decoder raises errors of its own kind
        raise CheckpointError(f"cannot read {path}: {first_line(error)}") from error


def read_tensors(path: Path) -> Any:
    """What ``torch.save`` wrote; only tensors and plain values are unpickled.

    Raises:
        CheckpointError: the file is missing or damaged, holds other objects, or would take more
            memory than its size.
    """
    try:
        with open_regular(path, max_bytes=_memory()) as file:
            _check_pickles(file)
            file.seek(0)
            values = torch.load(file, map_location="cpu", weights_only=True)
        _check_sizes(values)
        return values
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to mean
        raise CheckpointError(f"cannot read {path}: {first_line(error)}") from error


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The state dict of a ``.safetensors`` file or of one that ``torch.save`` wrote.

    It may be wrapped as ``state_dict`` or ``model``, and each name may begin with ``module.``,
    which is removed.

    Raises:
        CheckpointError: the file cannot be read, or holds something else.
    """
    values = read_safetensors(path) if path.suffix == ".safetensors" else read_tensors(path)
    for wrapper in ("state_dict", "model"):
        if isinstance(values, dict) and isinstance(values.get(wrapper), dict):
            values = values[wrapper]
    if not isinstance(values, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in values.items()
    ):
        raise CheckpointError(f"{path} is not a state dict: a mapping of names to tensors")
    return {name.removeprefix("module."): tensor for name, tensor in values.items()}


def _check_pickles(file: BinaryIO) -> None:
    """Raise ValueError unless the pickles in the file are bounded and refer to tensors only."""
    if file.read(len(_ZIP_MAGIC)) != _ZIP_MAGIC:
        file.seek(0)
        for _ in range(_LEGACY_PICKLES):
            _check_pickle(file)
        return
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        size = os.fstat(file.fileno()).st_size
        if sum(member.file_size for member in members) > size or any(
            member.compress_type != zipfile.ZIP_STORED for member in members
        ):
            raise ValueError("it is compressed or has overlapping members, unlike any by torch")
        for member in members:
            if member.filename.lower().endswith("data.pkl"):
                with archive.open(member) as pickle:
                    _check_pickle(pickle)


def _check_pickle(file: Any) -> None:
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if count > _MAX_OPCODES:
            raise ValueError("it holds too many values")
        if opcode.name == "GLOBAL" and not _HARMLESS.fullmatch(str(argument)):
            raise ValueError(f"it holds objects other than tensors ({argument})")


def _check_sizes(values: Any) -> None:
    """Raise ValueError if a tensor has a larger shape than its storage fills."""
    waiting, seen = [values], set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            if value.numel() * value.element_size() > value.untyped_storage().nbytes():
                raise ValueError(f"it holds an expanded tensor of shape {tuple(value.shape)}")
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value


def _memory() -> int:
    """Bytes of this machine's memory: no file that is read into it may be larger."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
