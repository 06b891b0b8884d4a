"""Packs as a user makes them, read back by the tools that are meant to read them."""

import json
import os
import shutil
import tarfile

import numpy as np
import pytest
import webdataset
from nvidia.dali import fn, pipeline_def
from PIL import Image

from sharding.__main__ import main
from sharding.format.index import key_name
from sharding.format.manifest import Manifest
from sharding.format.opening import open_pack
from sharding.listing import write_listing
from sharding.shard_plan import PackOptions
from sharding.sources import characters
from sharding.sources.dataset import Dataset, Sample
from sharding.sources.files import FileReader
from tests.common import files_of, flip


def pack(root, out, *options):
    return main(["pack", "imagefolder", "--root", str(root), "--out", str(out), *options])


def read_index(pack):
    """The index of a pack, its keys and its sources."""
    contents = open_pack(pack)
    keys = [key_name(number) for number in contents.index.key.tolist()]
    return contents.index, keys, contents.read_sources().to_pylist()


@pytest.fixture
def tree(image_tree, tmp_path):
    return shutil.copytree(image_tree, tmp_path / "tree")


def test_the_manifest_and_the_index_describe_the_tree(pack_path, image_tree):
    manifest = Manifest.load(pack_path)
    index, _, sources = read_index(pack_path)
    assert manifest.classes == ("ant", "bee", "cat", "dog", "eel")
    assert manifest.domains == ("day", "night")
    assert manifest.samples == len(index) == 60
    assert manifest.rejects == 0
    assert len(manifest.shards) > 1
    for row, source in enumerate(sources):
        domain, class_, _ = source.split("/")
        assert manifest.classes[index.label[row]] == class_
        assert manifest.domains[index.domain[row]] == domain
        with Image.open(image_tree / source) as image:
            assert image.size == (index.width[row], index.height[row])


def test_webdataset_reads_the_pack(pack_path, image_tree):
    shards = sorted(str(path) for path in pack_path.glob("*.tar"))
    dataset = webdataset.WebDataset(shards, shardshuffle=False)
    samples = list(dataset)
    index, keys, sources = read_index(pack_path)
    assert [sample["__key__"] for sample in samples] == keys
    for row, sample in enumerate(samples):
        assert sample["jpg"] == (image_tree / sources[row]).read_bytes()
        assert int(sample["cls"]) == index.label[row]


def test_dalis_reader_reads_the_pack(pack_path, image_tree):
    shards = sorted(str(path) for path in pack_path.glob("*.tar"))

    @pipeline_def(batch_size=7, num_threads=1, device_id=None)
    def graph():
        images, labels = fn.readers.webdataset(  # type: ignore[misc]
            paths=shards,
            index_paths=[shard.removesuffix("tar") + "idx" for shard in shards],
            ext=["jpg", "cls"],
            missing_component_behavior="error",
        )
        return images, labels

    pipeline = graph()
    pipeline.build()
    index, _, sources = read_index(pack_path)
    row = 0
    while row < len(index):
        images, labels = pipeline.run()
        for number in range(min(7, len(index) - row)):
            assert images.at(number).tobytes() == (image_tree / sources[row]).read_bytes()
            assert int(labels.at(number).tobytes()) == index.label[row]
            row += 1


def test_shards_are_plain_reproducible_tar_files(pack_path):
    for path in pack_path.glob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                assert (member.mtime, member.uid, member.gid, member.mode) == (0, 0, 0, 0o644)


def test_any_number_of_workers_writes_the_same_bytes(image_tree, pack_path, tmp_path):
    for workers in ("1", "3"):
        out = tmp_path / workers
        assert pack(image_tree, out, "--shard-size", "40KB", "--workers", workers) == 0
        assert files_of(out) == files_of(pack_path)


def test_what_cannot_be_packed_is_named_and_the_rest_is_packed(tree, tmp_path, capsys):
    folder = tree / "day" / "ant"
    whole = (folder / "0.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(whole[:-200])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "notes.txt").write_text("no image")
    (folder / "gone.jpg").symlink_to("nowhere")
    (folder / "loop").symlink_to(folder)
    assert pack(tree, tmp_path / "pack") == 0
    lines = (tmp_path / "pack" / "rejects.jsonl").read_text().splitlines()
    reasons = {
        reject["source"].split("/")[-1]: reject["reason"] for reject in map(json.loads, lines)
    }
    assert set(reasons) == {"truncated.jpg", "empty.jpg", "notes.txt", "gone.jpg", "loop"}
    assert "truncated" in reasons["truncated.jpg"]
    assert reasons["empty.jpg"] == "empty file"
    assert "not a readable image" in reasons["notes.txt"]
    assert Manifest.load(tmp_path / "pack").samples == 60
    assert "5 files were not packed" in capsys.readouterr().out


def test_large_images_are_shrunk_on_request_and_small_ones_keep_their_bytes(image_tree, tmp_path):
    assert pack(image_tree, tmp_path / "pack", "--resize-short", "60") == 0
    index, _, sources = read_index(tmp_path / "pack")
    for row, source in enumerate(sources):
        original = image_tree / source
        with Image.open(original) as image:
            short = min(image.size)
        assert min(index.width[row], index.height[row]) == min(short, 60)
        assert (index.size[row] == original.stat().st_size) or short > 60


def test_odd_names_and_formats_are_packed_under_ascii_keys(tmp_path):
    folder = tmp_path / "tree" / "één klasse"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    rgb = Image.fromarray(pixels)
    rgb.save(folder / "a b ü.jpg")
    rgb.save(folder / "png inside.jpg", "PNG")
    rgb.convert("RGBA").save(folder / "alpha.png")
    rgb.convert("CMYK").save(folder / "cmyk.jpg")
    rgb.convert("P").save(folder / "animated.gif")
    Image.fromarray(pixels[..., 0].astype(np.uint16) << 8).save(folder / "deep.png")
    rgb.save(folder / "photo.webp", lossless=True)
    assert pack(tmp_path / "tree", tmp_path / "pack") == 0
    manifest = Manifest.load(tmp_path / "pack")
    assert (manifest.samples, manifest.rejects) == (7, 0)
    _, keys, sources = read_index(tmp_path / "pack")
    assert all(key.isascii() for key in keys)
    with tarfile.open(tmp_path / "pack" / manifest.shards[0].name) as tar:
        names = [name for name in tar.getnames() if not name.endswith(".cls")]
        members = [tar.extractfile(name) for name in names]
        kinds = {member.read(3) for member in members if member}
    assert kinds <= {b"\xff\xd8\xff", b"\x89PN"}
    assert "één klasse/a b ü.jpg" in sources


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "cannot list"),
        (lambda root: root.mkdir(), "holds no images"),
        (lambda root: (root / "a" / "b").mkdir(parents=True), "holds no images"),
        (lambda root: _write(root / "a" / "x.jpg"), "none of the 1 files"),
        (lambda root: [_write(root / "a" / "x.jpg"), (root / "b" / "c").mkdir(parents=True)],
         "b/ does not"),
    ],
    ids=["missing", "empty", "no-files", "no-image", "mixed"],
)  # fmt: skip
def test_a_tree_that_cannot_be_packed_is_one_line_and_exit_code_2(
    make, message, tmp_path, error_line
):
    make(tmp_path / "tree")
    assert pack(tmp_path / "tree", tmp_path / "pack") == 2
    assert message in error_line()
    assert main(["info", str(tmp_path / "pack")]) == 2


def _write(path):
    path.parent.mkdir(parents=True)
    path.write_text("no image")


@pytest.mark.parametrize("command", [[], ["--part", "2/3"]], ids=["all", "part"])
def test_packing_again_says_that_the_pack_is_complete(command, image_tree, pack_path, capsys):
    before = files_of(pack_path)
    assert pack(image_tree, pack_path, "--shard-size", "40KB", *command) == 0
    printed = capsys.readouterr()
    assert printed.out.endswith("already complete\n")
    assert printed.out.count("\n") == 1
    assert not printed.err
    assert files_of(pack_path) == before


def test_merging_again_says_that_the_pack_is_complete(pack_path, capsys):
    assert main(["merge", str(pack_path)]) == 0
    assert capsys.readouterr().out.endswith("already complete\n")


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        (["--shard-size", "50KB"], "--shard-size (40000 then, 50000 now)"),
        (["--resize-short", "20"], "--resize-short (0 then, 20 now)"),
        (["--no-decode-check"], "--decode-check (True then, False now)"),
    ],
)
def test_a_complete_pack_of_different_options_is_an_error(
    options, difference, image_tree, pack_path, error_line
):
    before = files_of(pack_path)
    assert pack(image_tree, pack_path, "--shard-size", "40KB", *options) == 2
    assert difference in error_line()
    assert files_of(pack_path) == before


def test_a_complete_pack_of_a_different_tree_is_an_error(tree, tmp_path, error_line):
    assert pack(tree, tmp_path / "pack") == 0
    removed = (tree / "day" / "ant" / "0.jpg").rename(tmp_path / "0.jpg")
    assert pack(tree, tmp_path / "pack") == 2
    assert "number of files (60 then, 59 now)" in error_line()
    removed.rename(tree / "day" / "ant" / "0.jpg")
    assert pack(tree, tmp_path / "pack") == 0
    os.utime(tree / "day" / "bee" / "1.jpg")
    assert pack(tree, tmp_path / "pack") == 2
    assert "day/bee/1.jpg has changed since" in error_line()


@pytest.fixture
def stopped(tree, tmp_path, monkeypatch):
    """A pack of ``tree``, stopped when its shards were written and nothing else."""

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sharding.packing._finish", interrupt)
        assert pack(tree, tmp_path / "pack") == 130
    return tmp_path / "pack"


def test_a_different_tree_does_not_resume_a_pack(tree, stopped, error_line):
    (tree / "day" / "bee" / "2.jpg").unlink()
    assert pack(tree, stopped) == 2
    line = error_line()
    assert "number of files (60 then, 59 now)" in line
    assert "beginning with day/bee/3.jpg" in line


def test_a_file_that_changed_at_equal_size_does_not_resume_a_pack(tree, stopped, error_line):
    file = tree / "day" / "bee" / "2.jpg"
    before = file.stat()
    os.utime(file)
    for command in ([], ["--part", "1/2"]):
        assert pack(tree, stopped, *command) == 2
        assert "day/bee/2.jpg has changed since" in error_line()
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert pack(tree, stopped) == 0


def test_a_listing_that_cannot_be_read_does_not_resume_a_pack(tree, stopped, error_line):
    (stopped / ".work" / "listing" / "plan.json").write_text('{"dataset": "imagefolder"}')
    for arguments in (["merge", str(stopped)], None):
        assert (main(arguments) if arguments else pack(tree, stopped)) == 2
        assert "is damaged or of a different version; remove" in error_line()


def test_a_copy_of_the_tree_with_its_times_resumes_a_pack(tree, stopped, tmp_path):
    assert pack(shutil.copytree(tree, tmp_path / "copy"), stopped) == 0


def test_a_file_that_changes_while_it_is_packed_is_named(tree, tmp_path, monkeypatch, error_line):
    def list_then_change(*arguments):
        listing = write_listing(*arguments)
        (tree / "night" / "eel" / "5.jpg").write_bytes(b"replaced")
        return listing

    monkeypatch.setattr("sharding.packing.write_listing", list_then_change)
    assert pack(tree, tmp_path / "pack", "--workers", "1") == 2
    assert "night/eel/5.jpg changed after the tree was listed" in error_line()
    assert main(["info", str(tmp_path / "pack")]) == 2


def test_a_run_without_images_leaves_its_folder_to_the_next(tree, tmp_path, error_line):
    out = tmp_path / "pack"
    (tmp_path / "wrong" / "empty" / "class").mkdir(parents=True)
    assert pack(tmp_path / "wrong", out) == 2
    assert "holds no images" in error_line()
    assert not out.exists()
    (tmp_path / "wrong" / "empty" / "class" / "a.jpg").write_text("no image")
    assert pack(tmp_path / "wrong", out) == 2
    assert "none of the 1 files could be packed" in error_line()
    assert [path.name for path in out.iterdir()] == ["rejects.jsonl"]
    assert pack(tree, out) == 0
    assert Manifest.load(out).samples == 60


def test_a_run_that_wrote_no_shard_leaves_its_folder_to_the_next(tree, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sharding.__main__.run_local", interrupt)
        assert pack(tree, tmp_path / "pack") == 130
    assert pack(tree, tmp_path / "pack", "--shard-size", "40KB") == 0


def test_verify_names_a_damaged_sample(pack_path, tmp_path, capsys):
    copy = shutil.copytree(pack_path, tmp_path / "pack")
    assert main(["verify", str(copy)]) == 0
    index, keys, _ = read_index(copy)
    shard = copy / f"shard-{index.shard[20]:06d}.tar"
    flip(shard, int(index.offset[20]) + 100)
    capsys.readouterr()
    assert main(["verify", str(copy)]) == 1
    assert keys[20] in capsys.readouterr().out


def test_the_demo_is_packed_once_for_each_seed(tmp_path, monkeypatch, capsys, error_line):
    """Of few classes, which the workers need not know of: a source names what is drawn."""
    monkeypatch.setattr(characters, "NUM_CLASSES", 5)
    monkeypatch.setattr(characters, "NUM_TRAINING_CLASSES", 3)
    monkeypatch.setattr(characters, "TRAINING_SAMPLES", 1)
    monkeypatch.setattr(characters, "HELD_OUT_SAMPLES", 1)
    monkeypatch.setattr(characters, "NUM_REFERENCES", 0)
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out), "--workers", "2"]) == 0
    assert Manifest.load(out).splits == ("train", "reference", "test")
    capsys.readouterr()
    assert main(["demo", "--out", str(out)]) == 0
    assert "already complete" in capsys.readouterr().out
    assert main(["demo", "--out", str(out), "--seed", "1"]) == 2
    assert "the demo's seed" in error_line()


@pytest.mark.parametrize(
    ("megabytes", "shards"), [(10, 1), (160, 10), (1600, 16), (8192, 16), (102_400, 200)]
)
def test_small_data_sets_are_cut_for_many_readers_and_large_ones_by_size(
    megabytes, shards, tmp_path
):
    size = 1_000_000 - 64 - 3 * 512  # nearly a megabyte in a shard, headers and label included
    samples = [Sample(f"{number}.jpg", size, 0) for number in range(megabytes)]
    dataset = Dataset(
        "names", ("a",), ("default",), ("all",), lambda: iter(samples), FileReader(tmp_path)
    )
    listing = write_listing(dataset, PackOptions(), tmp_path / "listing")
    assert listing.plan.num_shards == shards
