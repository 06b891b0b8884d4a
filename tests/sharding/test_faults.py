"""Killed, stopped, short of space or run twice, packing loses nothing."""

import errno
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from PIL import Image

from runtime import files
from runtime.errors import PackError
from sharding import packing
from sharding.__main__ import main
from sharding.format.manifest import Manifest
from sharding.shard_plan import PackOptions
from sharding.sources.imagefolder import imagefolder
from tests.common import files_of
from tests.sharding.runs import SHARD_SIZE, command, pack_inline, run_inline


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
    """Stopped when the ``broken``-th file is about to get its name; finished shards stay."""
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


@pytest.mark.parametrize("sign", [".work/lock", ".work/listing", ".shard-*.tmp", "shard-*.tar"])
def test_a_command_stopped_from_the_keyboard_says_how_to_resume(image_tree, tmp_path, sign):
    """While it reads the tree, starts the workers, and writes the first and the other shards."""
    out = tmp_path / "pack"
    run = subprocess.Popen(command(image_tree, out), stderr=subprocess.PIPE, start_new_session=True)
    while not any(out.glob(sign)) and run.poll() is None:
        time.sleep(0.002)
    if run.poll() is None:
        os.killpg(run.pid, signal.SIGINT)
    _, errors = run.communicate()
    if not (out / "manifest.json").exists():  # else it was done before the signal
        # CPython itself dies of an interrupt that came inside exec() of a string; shells see 130
        assert run.returncode in (130, -signal.SIGINT)
        assert b"Traceback" not in errors
        assert b"rerun the same command to resume" in errors
