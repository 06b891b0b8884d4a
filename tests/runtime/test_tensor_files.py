"""Files of tensors from strangers take no more memory than their size, and run nothing."""

import io
import pickle
import zipfile

import pytest
import torch

from runtime.errors import CheckpointError
from runtime.tensor_files import read_state_dict, read_tensors


def saved(values):
    buffer = io.BytesIO()
    torch.save(values, buffer)
    return buffer.getvalue()


def rewritten(content, path, *, compression=zipfile.ZIP_STORED, pickled=None):
    """The zip file with a different compression, or a different pickle in it."""
    with (
        zipfile.ZipFile(io.BytesIO(content)) as old,
        zipfile.ZipFile(path, "w", compression) as new,
    ):
        for name in old.namelist():
            new.writestr(name, pickled if pickled and name.endswith("data.pkl") else old.read(name))


class Calls:
    """Pickles as a call of ``function`` with ``arguments``."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize("new", [True, False])
def test_both_formats_of_torch_are_read(tmp_path, new):
    values = {"a": torch.randn(3, 4), "b": [torch.nn.Parameter(torch.ones(2)), 5, None, 0.5]}
    torch.save(values, tmp_path / "x.pt", _use_new_zipfile_serialization=new)
    read = read_tensors(tmp_path / "x.pt")
    assert torch.equal(read["a"], values["a"])
    assert torch.equal(read["b"][0], values["b"][0])
    assert read["b"][1:] == [5, None, 0.5]


def test_a_compressed_file_is_refused(tmp_path):
    path = tmp_path / "bomb.pt"
    rewritten(saved({"a": torch.zeros(10_000_000)}), path, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    with pytest.raises(CheckpointError, match="compressed"):
        read_tensors(path)


def test_members_that_share_their_bytes_are_refused(tmp_path):
    path = tmp_path / "bomb.pt"
    path.write_bytes(saved({"a": torch.zeros(100_000)}))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/extra", b"")
        archive.infolist()[-1].file_size = archive.infolist()[-1].compress_size = 1_000_000
    with pytest.raises(CheckpointError, match="overlapping"):
        read_tensors(path)


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("function", [bytearray, torch.FloatTensor, torch.Tensor])
def test_a_call_that_only_takes_memory_is_refused(tmp_path, new, function):
    torch.save({"a": Calls(function, 10**9)}, tmp_path / "x.pt", _use_new_zipfile_serialization=new)
    with pytest.raises(CheckpointError, match="objects other than tensors"):
        read_tensors(tmp_path / "x.pt")


def test_a_few_numbers_under_a_large_shape_are_refused(tmp_path):
    torch.save({"a": torch.zeros(1).expand(10**12)}, tmp_path / "x.pt")
    assert (tmp_path / "x.pt").stat().st_size < 10_000
    with pytest.raises(CheckpointError, match="expanded tensor"):
        read_tensors(tmp_path / "x.pt")


def test_a_pickle_that_refers_to_itself_ends(tmp_path):
    loop = []
    loop.append(loop)
    rewritten(saved({}), tmp_path / "x.pt", pickled=pickle.dumps({"a": loop}, protocol=2))
    with pytest.raises(CheckpointError, match="not a state dict"):
        read_state_dict(tmp_path / "x.pt")


@pytest.mark.parametrize("values", [{1: torch.zeros(1)}, {"a": 1}, [torch.zeros(1)]])
def test_what_is_not_a_state_dict_is_one_line(tmp_path, values):
    torch.save(values, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="not a state dict"):
        read_state_dict(tmp_path / "x.pt")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02", b"\x00" * 1000])
def test_garbage_is_one_line(tmp_path, content):
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot read") as caught:
        read_tensors(tmp_path / "x.pt")
    assert "\n" not in str(caught.value)
