"""What is installed, by whichever way of installing."""

import configparser
import importlib.metadata

from tests.common import ROOT


def setup():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def names(text):
    return [line.split("[")[0].strip() for line in text.splitlines() if line.strip()]


def test_each_dali_extra_installs_one_dali_and_nothing_else_installs_any():
    extras = setup()["options.extras_require"]
    dali = {extra: names(text) for extra, text in extras.items() if "dali" in text}
    assert dali == {"cuda120": ["nvidia-dali-cuda120"], "cuda130": ["nvidia-dali-cuda130"]}
    assert not [name for name in names(setup()["options"]["install_requires"]) if "dali" in name]


def test_this_environment_has_exactly_one_dali():
    """Both distributions write to ``nvidia/dali``; with two, whichever came last is loaded."""
    installed = {
        name
        for distribution in importlib.metadata.distributions()
        if (name := distribution.metadata["Name"].lower()).startswith("nvidia-dali-cuda")
    }
    assert len(installed) == 1, installed


def test_every_package_with_code_is_installed():
    listed = set(names(setup()["options"]["packages"]))
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in ROOT.glob("*/**/__init__.py")
        if not path.relative_to(ROOT).parts[0].startswith(".")
    }
    assert listed == {name for name in found if not name.startswith(("tests", "benchmarks"))}
