"""Every command in documents, scripts and configurations is understood by the command's own parser.

Each runs up to the point where its arguments are parsed and, for training, the configuration is
built; nothing is packed, trained or evaluated.
"""

import argparse
import configparser
import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest

import evaluate
import predict
import train_ddp
from evaluation.run import load_protocol
from tests.common import ROOT

DOCUMENTS = sorted(
    path for place in (".", "docs", "examples") for path in (ROOT / place).glob("*.md")
)
SCRIPTS = [ROOT / "Makefile", *sorted((ROOT / "scripts").rglob("*.*"))]
COMMENTED = sorted((ROOT / "configs").rglob("*.yaml"))
PROGRAMS = ("python3?", "torchrun", "sbatch", "make", "pip")
COMMAND = re.compile(rf"(?:^|[\s(/])({'|'.join(PROGRAMS)})\s+(.*)")
MAKEFILE = (ROOT / "Makefile").read_text()
VARIABLES = {
    **{f"$({name})": value for name, value in re.findall(r"^(\w+) \?= (\S+)", MAKEFILE, re.M)},
    **{'"$PYTHON"': "python", "$I": "1", "$PACK": "packs/imagenet", "$LOCAL": "/scratch/imagenet"},
}
OTHERS = ("pip", "pytest", "venv")  # modules of other packages


class Understood(BaseException):
    """Ends a command whose arguments were parsed."""


def command_in(line):
    """The words of the command in ``line``, or None."""
    for name, value in VARIABLES.items():
        line = line.replace(name, value)
    line = re.sub(r"docker run .* resend ", "python ", line)  # the image's entry point
    found = COMMAND.search(line)
    if found is None:
        return None
    lexer = shlex.shlex(f"{found[1]} {found[2]}", posix=True, punctuation_chars="();|&")
    lexer.whitespace_split, lexer.commenters = True, "#"
    words = []
    for word in lexer:
        if set(word) <= set("();|&"):
            break
        words.append(word)
    return ["python" if words[0] == "python3" else words[0], *words[1:]]


def commands_in(path):
    """The commands that a file documents or runs."""
    text = re.sub(r"\\\n[#\s]*", " ", path.read_text(encoding="utf-8"))
    if path.suffix == ".md":
        blocks = [
            block
            for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S)
            if not language
        ]
        spans = re.findall(rf"`((?:{'|'.join(PROGRAMS)}) [^`]+)`", text)
        lines = [*"\n".join(blocks).splitlines(), *(" ".join(span.split()) for span in spans)]
    else:
        lines = [line[1:] for line in text.splitlines() if line.startswith("#   ")]
        if path in SCRIPTS:
            documented = command_in("\n".join(lines)) or []
            code = [line for line in text.splitlines() if not line.startswith("#")]
            lines += [line.replace('"$@"', " ".join(documented[2:])) for line in code]
    return [words for line in lines if (words := command_in(line))]


ALL = [(path, words) for path in [*DOCUMENTS, *SCRIPTS, *COMMENTED] for words in commands_in(path)]


@pytest.fixture
def stop_when_parsed(monkeypatch):
    """Let parsers end the command when they have understood it, in the repository's folder."""

    def then_stop(parse):
        def parse_and_stop(*arguments, **options):
            raise Understood(parse(*arguments, **options))

        return parse_and_stop

    parser = argparse.ArgumentParser
    monkeypatch.setattr(parser, "parse_args", then_stop(parser.parse_args))
    monkeypatch.setattr(train_ddp, "load_config", then_stop(train_ddp.load_config))
    monkeypatch.chdir(ROOT)
    return monkeypatch


@pytest.mark.parametrize(
    ("path", "words"), ALL, ids=lambda value: value.name if isinstance(value, Path) else None
)
def test_a_documented_command_is_understood(path, words, stop_when_parsed, capsys):
    program, *arguments = words
    if program == "make":
        understand_make(arguments)
    elif program == "pip":
        understand_pip(arguments)
    elif program == "sbatch":
        script, *options = arguments
        (started,) = set(re.findall(r'(\w+\.py) "\$@"', (ROOT / script).read_text()))
        understand_script(started, options, capsys)
    elif program == "torchrun" or arguments[:2] == ["-m", "torch.distributed.run"]:
        position = next(place for place, word in enumerate(arguments) if word.endswith(".py"))
        understand_script(arguments[position], arguments[position + 1 :], capsys)
    elif arguments[0] == "-m":
        understand_module(arguments[1], arguments[2:], stop_when_parsed, capsys)
    else:
        understand_script(arguments[0], arguments[1:], capsys)


def test_the_documents_have_commands_of_each_kind():
    """So that a change to the way they are found does not leave the test above empty."""
    found = {" ".join(words[:3]) for _, words in ALL}
    for beginning in (
        *("python -m sharding", "python -m pipelines", "python -m runtime", "python -m benchmarks"),
        *("python -m evaluation", "python predict.py"),
        *("python train_ddp.py --config", "python evaluate.py --protocol", "torchrun ", "sbatch "),
        "make ",
    ):
        assert any(command.startswith(beginning) for command in found), beginning


def understand_script(name, arguments, capsys):
    scripts = {"train_ddp.py": train_ddp, "evaluate.py": evaluate, "predict.py": predict}
    command = scripts[name]
    parsed = run(command.main, arguments, capsys)
    if command is evaluate and parsed is not None:
        for protocol in parsed.protocol:
            if parsed.lists is None or protocol.startswith("ooddb:"):
                assert load_protocol(protocol, parsed.lists).targets


def understand_module(name, arguments, patch, capsys):
    if name in OTHERS:
        assert importlib.util.find_spec(name)
        return understand_pip(arguments) if name == "pip" else None
    module = importlib.import_module(name)
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"{name}.__main__")
    if not arguments:
        return None
    if hasattr(module, "load_config"):
        patch.setattr(module, "load_config", train_ddp.load_config)
    patch.setattr(sys, "argv", [name, *arguments])
    return run(module.main, None, capsys)


def run(main, arguments, capsys):
    """What the command's parser understood."""
    try:
        status = main() if arguments is None else main(arguments)
    except Understood as understood:
        return understood.args[0]
    except SystemExit as end:
        status = end.code
        if status == 0:  # --help
            return None
    pytest.fail(f"exit status {status}: {capsys.readouterr().err}")


def understand_make(arguments):
    for word in arguments:
        name, equals, _ = word.partition("=")
        assert re.search(rf"^{name} \?=" if equals else rf"^{name}:", MAKEFILE, re.MULTILINE)


def understand_pip(arguments):
    """An extra of ours that is to be installed has to exist."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    for extras in re.findall(r"\.\[([\w,]+)\]", " ".join(arguments)):
        for extra in extras.split(","):
            assert extra in setup["options.extras_require"]
