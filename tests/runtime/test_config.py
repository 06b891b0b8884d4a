"""Configuration files and options become dataclasses, mistakes become one line."""

from dataclasses import dataclass, field

import pytest

from runtime.config import load_config, plain, to_yaml
from runtime.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    size: int = 3
    names: tuple[str, ...] | None = None

    def __post_init__(self):
        if self.size < 0:
            raise ValueError("inner.size must not be negative")


@dataclass(frozen=True)
class Outer:
    path: str
    rate: float = 0.1
    dry_run: bool = False
    inner: Inner = field(default_factory=Inner)


def load(*arguments):
    return load_config(Outer, arguments, prog="tool", description="")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("path: here\nrate: 1e-3\ninner: {size: 5, names: [a, b]}\n")
    return path


def test_options_override_the_file_wherever_they_stand(file):
    expected = Outer("here", 1e-3, inner=Inner(7, ("a", "b")))
    assert load("--config", str(file), "--inner.size=7") == expected
    assert load("--inner.size", "7", f"--config={file}") == expected


def test_help_keeps_the_lines_of_the_description_and_lists_keys_not_groups(capsys):
    with pytest.raises(SystemExit):
        load_config(Outer, ["--help"], prog="tool", description="What it does.\n\ntool --path=x\n")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "usage: tool [-h] [--config FILE] [--KEY=VALUE ...]"
    assert "tool --path=x" in lines
    options = {line.split()[0] for line in lines if line.startswith("  --")}
    assert {"--path", "--inner.size"} <= options
    assert "--inner" not in options


@pytest.mark.parametrize("switch", ["--dry-run", "--dry_run"])
def test_a_switch_needs_no_value_in_either_spelling(file, switch):
    assert load("--config", str(file), switch).dry_run
    assert not load("--config", str(file)).dry_run
    with pytest.raises(ConfigError, match="false"):
        load("--config", str(file), switch, "false")


def test_yaml_reads_back_as_the_same_configuration(file, tmp_path):
    config = load("--config", str(file))
    (tmp_path / "copy.yaml").write_text(to_yaml(config))
    assert load("--config", str(tmp_path / "copy.yaml")) == config
    assert plain(config)["inner"] == {"size": 5, "names": ["a", "b"]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path: x\nzeal: 1\n", "zeal"),
        ("path: x\ninner: {weight: 1}\n", "weight"),
        ("path: x\nrate: fast\n", "rate"),
        ("path: x\ninner: {size: -1}\n", "inner.size must not be negative"),
        ("rate: 1\n", "path"),
        ("path: [\n", "config"),
        ("path: x\ninner: {names: ab}\n", r"inner.names must be a list such as .* not ab"),
        ("path: x\ninner: {size: 1.5}\n", "inner.size must be a whole number, not 1.5"),
        ("path: x\ninner: " + "[" * 1500 + "]" * 1500, "nested too deeply"),
    ],
)
def test_a_mistake_in_the_file_is_one_line_that_names_it(tmp_path, text, words):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        load("--config", str(path))
    assert "\n" not in str(caught.value)


def test_unknown_options_and_missing_files_are_named(file):
    with pytest.raises(ConfigError, match="nothing"):
        load("--config", str(file), "--inner.nothing=3")
    with pytest.raises(ConfigError, match="absent"):
        load("--config", "absent.yaml")


def test_an_argument_that_the_locale_cannot_hold_is_named(file):
    with pytest.raises(ConfigError, match=r"l\\udce4uft.*LC_ALL"):
        load("--config", str(file), "--path=l\udce4uft")
