"""No function takes more than six parameters: values that travel together get a name."""

import ast

import pytest

from tests.common import ROOT

PLACES = ("sharding", "pipelines", "model", "runtime", "training", "evaluation", "benchmarks")


@pytest.mark.parametrize("place", PLACES)
def test_no_function_takes_more_than_six_parameters(place):
    for path in sorted((ROOT / place).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                names = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                count = len([name for name in names if name.arg not in ("self", "cls")])
                assert count <= 6, f"{path.relative_to(ROOT)}: {node.name} takes {count}"
