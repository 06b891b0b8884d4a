"""What is altered, made once."""

from dataclasses import replace

import pytest
from alterations_files import SECRET
from kit import Kit, make_kit


@pytest.fixture(scope="session")
def made_kit(tmp_path_factory, runner) -> Kit:
    return make_kit(tmp_path_factory.mktemp("kit"), runner)


@pytest.fixture
def kit(made_kit, tmp_path) -> Kit:
    """The kit, its commands run in ``tmp_path / room``, next to which lies ``neighbor``."""
    (tmp_path / "neighbor").mkdir()
    (tmp_path / "neighbor" / "secret").write_text(SECRET)
    (tmp_path / "room").mkdir()
    (tmp_path / "out").mkdir()
    return replace(made_kit, room=tmp_path / "room")
