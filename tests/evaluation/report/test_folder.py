"""Results appear complete or not at all."""

import os
import resource
import signal

import pytest

from evaluation.comparison import compare
from evaluation.report.folder import reserve
from runtime.errors import ConfigError

FILES = {
    "comparisons.csv",
    "figures",
    "report.html",
    "results.csv",
    "results.json",
    "results.md",
    "scores.parquet",
}


@pytest.fixture
def place(tmp_path):
    """A folder in which the results lie alone."""
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


@pytest.fixture
def write(results, receipt):
    def write(out, overwrite=False):
        with reserve(out, overwrite) as folder:
            folder.write(results, compare(results, 2), receipt)

    return write


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def contents(folder) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_all_files_appear_at_once_and_nothing_else_stays(write, place):
    write(place / "out")
    assert names(place) == {"out"}
    assert names(place / "out") == FILES


def test_nothing_is_to_be_seen_before_the_end(results, receipt, place):
    with reserve(place / "deep" / "out", False) as folder:
        assert not (place / "deep" / "out").exists()
        folder.write(results, compare(results, 2), receipt)
        assert names(place / "deep" / "out") == FILES


def test_a_failure_leaves_nothing(place):
    with pytest.raises(KeyboardInterrupt), reserve(place / "deep" / "out", False):
        raise KeyboardInterrupt
    assert names(place) == set()


def test_results_are_replaced_only_when_asked(write, place):
    write(place / "out")
    before = (place / "out" / "results.json").stat().st_ino
    with pytest.raises(ConfigError, match=r"holds results; choose another --out, or.*--overwrite"):
        write(place / "out")
    assert (place / "out" / "results.json").stat().st_ino == before
    write(place / "out", overwrite=True)
    assert (place / "out" / "results.json").stat().st_ino != before
    assert names(place) == {"out"}
    assert names(place / "out") == FILES


def test_other_files_are_never_replaced(write, place):
    (place / "thesis.tex").write_text("years")
    with pytest.raises(ConfigError, match=r"holds files other than results, such as thesis\.tex"):
        write(place, overwrite=True)
    assert names(place) == {"thesis.tex"}
    assert names(place.parent) >= {"place"}
    assert not [name for name in names(place.parent) if name.startswith(".place")]


@pytest.mark.parametrize("complete", [False, True])
def test_other_figures_are_never_replaced(write, place, complete):
    out = place / "out"
    name = "photo.jpg" if complete else "mine.svg"
    if complete:
        write(out)
    (out / "figures").mkdir(parents=True, exist_ok=True)
    (out / "figures" / name).write_text("years")
    with pytest.raises(ConfigError, match="holds files other than results, such as figures"):
        write(out, overwrite=True)
    assert (out / "figures" / name).read_text() == "years"


def test_an_empty_folder_is_used_and_a_link_leads_to_its_target(write, place):
    (place / "real").mkdir()
    (place / "link").symlink_to("real")
    write(place / "link")
    assert (place / "link").is_symlink()
    assert names(place / "real") == FILES


@pytest.mark.parametrize("out", ["/", "/dev/null", "/dev/null/out", "/proc/out", "x" * 300])
def test_a_place_that_cannot_be_written_is_reported_in_advance(out, place):
    with pytest.raises(ConfigError, match="choose another --out"), reserve(place / out, False):
        pytest.fail("it was reserved")


def test_a_second_evaluation_into_the_same_folder_is_refused(write, place):
    with reserve(place / "out", False):
        with pytest.raises(ConfigError, match="another evaluation is writing to"):
            write(place / "out")
        assert names(place) == {".out.partial"}
    write(place / "out")
    assert names(place / "out") == FILES


def test_an_evaluation_that_was_killed_blocks_nobody(write, place):
    child = os.fork()
    if not child:
        with reserve(place / "out", False):
            (place / ".out.partial" / "results.csv").write_text("half")
            (place / ".out.partial" / "figures").mkdir()
            (place / ".out.partial" / "figures" / "a.svg").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert names(place) == {".out.partial"}
    write(place / "out")
    assert names(place / "out") == FILES


def test_results_whose_replacement_was_killed_come_back(write, place):
    write(place / "out")
    (place / "out").rename(place / ".out.previous")
    with pytest.raises(ConfigError, match="holds results"):
        write(place / "out")
    assert names(place) == {"out"}
    assert names(place / "out") == FILES


@pytest.mark.parametrize("limit", [0, 1000, 10_000])
def test_a_full_disk_leaves_the_earlier_results(write, place, limit):
    write(place / "out")
    before = contents(place / "out")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
        with pytest.raises(ConfigError, match=r"cannot write the results to .*File too large"):
            write(place / "out", overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(place) == {"out"}
    assert contents(place / "out") == before
