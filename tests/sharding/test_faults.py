"""Whatever happens to a run or a pack is survived, repaired, or named."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from runtime import files
from runtime.errors import PackError
from sharding import packing
from sharding.__main__ import main
from sharding.format.index import key_name
from sharding.format.manifest import Manifest
from sharding.format.opening import open_pack
from sharding.listing import write_listing
from sharding.shard_plan import PackOptions
from sharding.sources.tree import imagefolder

SHARD_SIZE = 40_000


def files_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def run_inline(task, numbers):
    for number in numbers:
        yield task.ensure(number)


def pack_inline(tree, out, **options):
    dataset = imagefolder(tree.resolve())
    return packing.pack(dataset, out, PackOptions(SHARD_SIZE), run_inline, **options)


@pytest.fixture
def damaged(pack_path, tmp_path):
    return shutil.copytree(pack_path, tmp_path / "damaged")


def command(tree, out, *options):
    return [
        *(sys.executable, "-m", "sharding", "pack", "imagefolder", "--root", str(tree)),
        *("--out", str(out), "--shard-size", f"{SHARD_SIZE // 1000}KB", "--workers", "2", *options),
    ]


def kill_often(tree, reference, out, rounds, seed):
    """Kill the command ``rounds`` times at random moments; each time it resumes, or starts again
    once it was done. Every complete pack has the reference's bytes."""
    rng = random.Random(seed)
    started = time.perf_counter()
    subprocess.run(command(tree, out), check=True, stdout=subprocess.DEVNULL)
    whole = time.perf_counter() - started
    shutil.rmtree(out)
    for _ in range(rounds):
        run = subprocess.Popen(
            command(tree, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(rng.uniform(0.3, 1.0) * whole)
        run.send_signal(signal.SIGKILL)  # the command alone: its workers have to notice
        run.wait()
        if (out / "manifest.json").exists():
            assert files_of(out) == reference
            shutil.rmtree(out)
    for _ in range(100):  # workers of the last killed run may be writing their last shard
        if subprocess.run(command(tree, out), stdout=subprocess.DEVNULL).returncode == 0:
            break
        time.sleep(0.1)
    assert files_of(out) == reference
    assert not (out / ".work").exists()


def test_a_pack_survives_kills_at_random_moments(image_tree, pack_path, tmp_path):
    kill_often(image_tree, files_of(pack_path), tmp_path / "pack", rounds=4, seed=0)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_pack_survives_many_kills_at_random_moments(image_tree, pack_path, tmp_path):
    kill_often(image_tree, files_of(pack_path), tmp_path / "pack", rounds=30, seed=1)


@pytest.mark.parametrize("broken", range(1, 30, 2))
def test_a_pack_survives_a_stop_at_any_file(image_tree, pack_path, tmp_path, monkeypatch, broken):
    """Stopped when the ``broken``-th file is about to get its name; whole shards stay untouched."""
    out, replaced = tmp_path / "pack", 0

    def stop(path, target):
        nonlocal replaced
        replaced += 1
        if replaced == broken:
            raise KeyboardInterrupt
        return os.replace(path, target)

    monkeypatch.setattr(Path, "replace", stop)
    try:
        pack_inline(image_tree, out)
    except KeyboardInterrupt:
        monkeypatch.undo()
        assert not (out / "manifest.json").exists()
        recorded = {path.stem for path in (out / ".work").glob("shard-*.json")}
        before = {path: path.stat() for path in out.glob("*.tar") if path.stem in recorded}
        pack_inline(image_tree, out)
        assert all(path.stat().st_mtime_ns == old.st_mtime_ns for path, old in before.items())
    assert files_of(out) == files_of(pack_path)


@pytest.mark.parametrize("room", [0, 30_000, 90_000, 10**5 + 50_000])
def test_a_full_disk_is_one_line_and_a_second_run_finishes(
    room, image_tree, pack_path, tmp_path, monkeypatch, capsys
):
    left = room

    class Small:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            nonlocal left
            left -= len(data)
            if left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return self.file.write(data)

        def __getattr__(self, name):
            return getattr(self.file, name)

    whole = files.atomic_file

    @files.contextlib.contextmanager
    def small(path):
        with whole(path) as file:
            yield Small(file)

    monkeypatch.setattr("sharding.shard.atomic_file", small)
    out = tmp_path / "pack"
    with pytest.raises(PackError, match="No space left on device; fix this and rerun the same"):
        pack_inline(image_tree, out)
    monkeypatch.undo()
    assert main(["info", str(out)]) == 2
    assert not list(out.glob(".*.tmp"))
    pack_inline(image_tree, out)
    assert files_of(out) == files_of(pack_path)


def test_a_killed_worker_is_one_line_and_a_second_run_finishes(tmp_path, image_tree):
    out, tree = tmp_path / "pack", tmp_path / "tree"
    Image.effect_noise((500, 500), 90).convert("RGB").save(tmp_path / "noise.png")
    for number in range(30):
        (tree / f"class{number % 3}").mkdir(parents=True, exist_ok=True)
        (tree / f"class{number % 3}" / f"{number}.png").hardlink_to(tmp_path / "noise.png")
    run = subprocess.Popen(command(tree, out, "--shard-size", "3MB"), stderr=subprocess.PIPE)
    writers: list[Path] = []
    while not writers:
        assert run.poll() is None, "the command ended before a worker wrote a shard"
        writers = list(out.glob(".shard-*.tmp"))
        time.sleep(0.002)
    os.kill(int(writers[0].name.split(".")[-2]), signal.SIGKILL)
    _, errors = run.communicate()
    assert run.returncode == 2
    assert b"error: a worker process died" in errors
    assert b"Traceback" not in errors
    subprocess.run(command(tree, out, "--shard-size", "3MB"), check=True)
    assert Manifest.load(out).samples == 30


def test_two_runs_into_one_folder_are_refused(image_tree, tmp_path, capsys):
    out = tmp_path / "pack"

    def while_running(task, numbers):
        options = ["--shard-size", "40KB"]
        arguments = ["pack", "imagefolder", "--root", str(image_tree), "--out", str(out)]
        assert main([*arguments, *options]) == 2
        assert main([*arguments, *options, "--part", "1/2"]) == 2
        assert capsys.readouterr().err.count("another process is writing") == 2
        return run_inline(task, numbers)

    packing.pack(imagefolder(image_tree), out, PackOptions(SHARD_SIZE), while_running)


def test_parts_in_any_order_and_a_merge_give_the_same_pack(image_tree, pack_path, tmp_path, capsys):
    out = tmp_path / "pack"
    arguments = ["pack", "imagefolder", "--root", str(image_tree), "--out", str(out)]
    arguments += ["--shard-size", "40KB", "--workers", "1", "--part"]
    assert main(["merge", str(out)]) == 2
    assert main([*arguments, "2/2"]) == 0
    assert main(["merge", str(out)]) == 2
    assert "shard 0 of" in capsys.readouterr().err
    assert main([*arguments, "1/2"]) == 0
    (out / ".shard-000000.tar.elsewhere.1.tmp").touch()  # of a part that was killed
    assert main(["merge", str(out)]) == 0
    assert files_of(out) == files_of(pack_path)


def test_a_dask_cluster_of_two_processes_writes_the_same_pack(image_tree, pack_path, tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        options = ["--executor", "dask", "--scheduler", cluster.scheduler_address]
        arguments = ["pack", "imagefolder", "--root", str(image_tree), "--shard-size", "40KB"]
        assert main([*arguments, "--out", str(tmp_path / "pack"), *options]) == 0
    assert files_of(tmp_path / "pack") == files_of(pack_path)


def test_rejects_beyond_the_limit_fail_at_the_end_and_can_be_accepted(image_tree, tmp_path, capsys):
    tree = shutil.copytree(image_tree, tmp_path / "tree")
    for number in range(3):
        (tree / "day" / "ant" / f"bad{number}.jpg").write_bytes(b"no image")
    arguments = ["pack", "imagefolder", "--root", str(tree), "--out", str(tmp_path / "pack")]
    assert main([*arguments, "--max-rejects", "4%"]) == 2
    assert "3 of 63 files (4.76%) were rejected" in capsys.readouterr().err
    assert len((tmp_path / "pack" / "rejects.jsonl").read_text().splitlines()) == 3
    assert main([*arguments, "--max-rejects", "5%"]) == 0
    assert Manifest.load(tmp_path / "pack").rejects == 3


def test_a_dry_run_prints_the_plan_and_writes_nothing(image_tree, tmp_path, capsys):
    arguments = ["pack", "imagefolder", "--root", str(image_tree), "--out", str(tmp_path / "pack")]
    assert main([*arguments, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "60 files of 5 classes in 2 domains" in printed
    assert "rejected" not in printed
    assert not (tmp_path / "pack").exists()


def test_a_dry_run_counts_what_the_run_lists_and_what_it_will_reject(image_tree, tmp_path, capsys):
    tree = shutil.copytree(image_tree, tmp_path / "tree")
    (tree / "day" / "ant" / "empty.jpg").touch()
    (tree / "day" / "ant" / "nowhere.jpg").symlink_to("nowhere")
    (tree / "day" / "ant" / "notes.txt").write_text("not an image")
    arguments = ["pack", "imagefolder", "--root", str(tree), "--out", str(tmp_path / "pack")]
    assert main([*arguments, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "63 files of 5 classes" in printed
    assert "2 of the files will be rejected" in printed
    assert "found only by packing" in printed
    assert main(arguments) == 0
    manifest = Manifest.load(tmp_path / "pack")
    assert (manifest.samples, manifest.rejects) == (60, 3)


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 4
    path.write_bytes(content)


def truncate(path, size):
    os.truncate(path, size)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda pack, offset: flip(pack / "shard-000001.tar", offset + 50),
            "is damaged: its checksum",
        ),
        (
            lambda pack, offset: flip(pack / "shard-000001.tar", offset - 500),
            "tar header that does not match",
        ),
        (lambda pack, _: flip(pack / "shard-000001.tar", -1), "has changed outside"),
        (lambda pack, offset: truncate(pack / "shard-000001.tar", offset + 9), "bytes instead of"),
        (lambda pack, _: (pack / "shard-000001.tar").unlink(), "is missing or empty"),
        (
            lambda pack, _: shutil.copy(pack / "shard-000000.idx", pack / "shard-000001.idx"),
            "is not the index of",
        ),
    ],
    ids=["byte", "header", "end", "truncated", "missing", "foreign-index"],
)
def test_verify_names_damage_and_repair_removes_it(
    damage, message, damaged, pack_path, image_tree, capsys
):
    index = open_pack(damaged).index
    row = (index.shard == 1).nonzero()[0][1]
    damage(damaged, int(index.offset[row]))
    assert main(["verify", str(damaged), "--workers", "1"]) == 1
    printed = capsys.readouterr().out
    assert message in printed
    if "sample" in printed:
        assert key_name(index.key[row]) in printed
    assert main(["verify", str(damaged), "--repair", "--root", str(image_tree)]) == 0
    assert files_of(damaged) == files_of(pack_path)
    assert main(["verify", str(damaged), "--decode"]) == 0


def test_repair_refuses_another_tree(damaged, image_tree, tmp_path, capsys):
    flip(damaged / "shard-000001.tar", -1)
    tree = shutil.copytree(image_tree, tmp_path / "tree")
    (tree / "day" / "ant" / "0.jpg").unlink()
    before = files_of(damaged)
    assert main(["verify", str(damaged), "--repair", "--root", str(tree)]) == 2
    assert "a tree with different files" in capsys.readouterr().err
    assert files_of(damaged) == before


def test_repair_clears_away_what_a_killed_repair_left(damaged, pack_path, image_tree, tmp_path):
    flip(damaged / "shard-000001.tar", -1)
    tree = shutil.copytree(image_tree, tmp_path / "tree")
    (tree / "day" / "ant" / "0.jpg").unlink()
    write_listing(imagefolder(tree), PackOptions(), damaged / ".work" / "listing")
    (damaged / ".work" / "shard-000001.tar").write_bytes(b"cut short")
    assert main(["verify", str(damaged), "--repair", "--root", str(image_tree)]) == 0
    assert files_of(damaged) == files_of(pack_path)
    assert not (damaged / ".work").exists()


def test_a_pack_without_its_manifest_is_refused_by_every_command(damaged, tmp_path, capsys):
    (damaged / "manifest.json").unlink()
    for arguments in (["info"], ["verify"], ["stage"]):
        extra = [str(tmp_path / "local")] if arguments == ["stage"] else []
        assert main([*arguments, str(damaged), *extra]) == 2
        assert "is not a complete pack" in capsys.readouterr().err


def test_staging_copies_checks_and_recognises_its_copy(pack_path, tmp_path, capsys):
    local = tmp_path / "node" / "pack"
    assert main(["stage", str(pack_path), str(local)]) == 0
    assert files_of(local) == files_of(pack_path)
    assert main(["stage", str(pack_path), str(local)]) == 0
    assert "is there already" in capsys.readouterr().out


def test_staging_goes_on_where_it_was_cut_short(damaged, pack_path, tmp_path, capsys):
    local = tmp_path / "local"
    flip(damaged / "shard-000001.tar", 2000)
    assert main(["stage", str(damaged), str(local)]) == 2
    assert "shard-000001.tar is damaged" in capsys.readouterr().err
    assert not local.exists()
    first = (tmp_path / ".local.staging" / "shard-000000.tar").stat().st_ino
    shutil.copy(pack_path / "shard-000001.tar", damaged)
    assert main(["stage", str(damaged), str(local)]) == 0
    assert (local / "shard-000000.tar").stat().st_ino == first
    assert files_of(local) == files_of(pack_path)


def test_staging_refuses_a_disk_that_is_too_small(pack_path, tmp_path, monkeypatch, capsys):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("sharding.staging.shutil.disk_usage", lambda _: usage)
    assert main(["stage", str(pack_path), str(tmp_path / "local")]) == 2
    assert "make room" in capsys.readouterr().err
    assert not (tmp_path / "local").exists()


def test_a_bomb_is_rejected_without_being_decoded(tmp_path, monkeypatch):
    folder = tmp_path / "tree" / "class"
    folder.mkdir(parents=True)
    Image.new("RGB", (300, 200)).save(folder / "large.png")
    Image.new("RGB", (20, 20)).save(folder / "small.png")
    options = ["--max-pixels", "10000"]
    arguments = ["pack", "imagefolder", "--root", str(folder.parent), "--out", str(tmp_path / "p")]
    assert main([*arguments, *options]) == 0
    assert "300 x 200 pixels" in (tmp_path / "p" / "rejects.jsonl").read_text()


def test_names_that_are_no_utf8_or_very_long_are_packed(tmp_path):
    folder = tmp_path / "tree" / "class"
    folder.mkdir(parents=True)
    names = [b"caf\xe9.jpg", b"x" * 250 + b".jpg", b"new\nline.jpg"]
    for name in names:
        Image.new("RGB", (20, 20)).save(folder / "plain.jpg")
        os.rename(folder / "plain.jpg", os.path.join(os.fsencode(folder), name))
    pack_inline(folder.parent, tmp_path / "pack")
    sources = open_pack(tmp_path / "pack").read_sources().to_pylist()
    assert sorted(sources) == sorted(
        ["class/caf\\xe9.jpg", f"class/{'x' * 250}.jpg", "class/new\nline.jpg"]
    )


def test_what_is_not_a_regular_file_of_usual_size_is_rejected_unread(image_tree, tmp_path):
    tree = shutil.copytree(image_tree, tmp_path / "tree")
    folder = tree / "day" / "ant"
    os.mkfifo(folder / "pipe.jpg")
    (folder / "zero.jpg").symlink_to("/dev/zero")
    (folder / "folder.jpg").mkdir()
    (folder / "endless.jpg").symlink_to("/proc/self/mountinfo")
    with (folder / "sparse.jpg").open("wb") as sparse:
        sparse.truncate(9 * 10**9)
    assert pack_inline(tree, tmp_path / "pack").samples == 60
    lines = (tmp_path / "pack" / "rejects.jsonl").read_text().splitlines()
    reasons = {Path(reject["source"]).stem: reject["reason"] for reject in map(json.loads, lines)}
    assert reasons.pop("sparse").startswith("9,000,000,000 bytes are more than")
    assert reasons.pop("endless").startswith("does not have the 0 bytes")
    assert reasons == dict.fromkeys(("pipe", "zero", "folder"), "not a regular file")


def test_the_reasons_for_rejects_do_not_depend_on_where_the_tree_is(image_tree, tmp_path):
    for place in ("here", "there"):
        tree = shutil.copytree(image_tree, tmp_path / place)
        (tree / "day" / "ant" / "gone.jpg").symlink_to("nowhere")
        pack_inline(tree, tmp_path / f"pack-{place}")
    assert files_of(tmp_path / "pack-here") == files_of(tmp_path / "pack-there")


def test_a_changed_tree_packed_again_in_the_same_place_is_listed_again(image_tree, tmp_path):
    tree, out = shutil.copytree(image_tree, tmp_path / "tree"), tmp_path / "pack"
    pack_inline(tree, out)
    shutil.rmtree(out)
    (tree / "day" / "ant" / "0.jpg").unlink()
    assert pack_inline(tree, out).samples == 59
    assert "day/ant/0.jpg" not in open_pack(out).read_sources().to_pylist()


@pytest.mark.parametrize("delay", [0, 0.05, 0.1, 0.15])
def test_a_command_stopped_from_the_keyboard_says_how_to_resume(image_tree, tmp_path, delay):
    out = tmp_path / "pack"
    run = subprocess.Popen(command(image_tree, out), stderr=subprocess.PIPE, start_new_session=True)
    while not (out / ".work" / "lock").exists():
        assert run.poll() is None, "the command ended before it took the lock"
        time.sleep(0.005)
    time.sleep(delay)  # reading the tree, starting the workers, writing the shards
    os.killpg(run.pid, signal.SIGINT)
    _, errors = run.communicate()
    if not (out / "manifest.json").exists():  # else it was done before the signal
        # CPython itself dies of an interrupt that came inside exec() of a string; shells see 130
        assert run.returncode in (130, -signal.SIGINT)
        assert b"Traceback" not in errors
        assert b"rerun the same command to resume" in errors
