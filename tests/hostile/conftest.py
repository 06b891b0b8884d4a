"""The commands' runner and what is altered, made once."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from alterations_files import SECRET
from commands import Runner, running
from kit import Kit, make_kit

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "COLUMNS": "120"}


@pytest.fixture(scope="session")
def runner(tmp_path_factory) -> Iterator[Runner]:
    with running(tmp_path_factory.mktemp("runner"), **ENVIRONMENT) as started:
        yield started


@pytest.fixture(scope="session")
def made_kit(tmp_path_factory, runner) -> Kit:
    return make_kit(tmp_path_factory.mktemp("kit"), runner)


@pytest.fixture
def kit(made_kit, tmp_path) -> Kit:
    """The kit, its commands run in ``tmp_path / room``, beside which lies ``neighbor``."""
    (tmp_path / "neighbor").mkdir()
    (tmp_path / "neighbor" / "secret").write_text(SECRET)
    (tmp_path / "room").mkdir()
    (tmp_path / "out").mkdir()
    return replace(made_kit, room=tmp_path / "room")
