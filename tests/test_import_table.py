"""Who may import whom: the architecture, held by a test."""

import ast

import pytest

from tests.common import ROOT

OURS = {
    "sharding",
    "pipelines",
    "model",
    "runtime",
    "training",
    "evaluation",
    "train_ddp",
    "evaluate",
    "predict",
}
ALLOWED = {
    "sharding": {"runtime.errors", "runtime.command", "runtime.files"},
    "pipelines": {
        "sharding.format",
        "model.config",
        "model.geometry",
        "runtime.errors",
        "runtime.command",
        "runtime.device",
        "runtime.checks",
    },
    "model": set(),
    "runtime": set(),
    "evaluation": {"sharding", "pipelines", "model", "runtime"},
    "training": {"sharding", "pipelines", "model", "runtime", "evaluation"},
}
FORBIDDEN_LIBRARIES = {
    "sharding": {"torch", "torchvision", "nvidia", "timm"},
    "model": {"nvidia", "webdataset", "pyarrow", "PIL", "socket", "pathlib", "os", "io"},
}


def modules(package):
    return sorted((ROOT / package).rglob("*.py"))


def imported(path):
    """Dotted names of everything that a module imports, at any depth of its code."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_only_what_the_table_allows(package):
    for path in modules(package):
        for name in imported(path):
            root = name.split(".")[0]
            if root not in OURS or root == package:
                continue
            permitted = any(
                name == allowed or name.startswith(allowed + ".") for allowed in ALLOWED[package]
            ) or any(allowed.startswith(name + ".") for allowed in ALLOWED[package])
            assert permitted, f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("package", FORBIDDEN_LIBRARIES)
def test_packages_stay_free_of_what_they_must_not_need(package):
    for path in modules(package):
        roots = {name.split(".")[0] for name in imported(path)}
        found = roots & FORBIDDEN_LIBRARIES[package]
        assert not found, f"{path.relative_to(ROOT)} imports {found}"


@pytest.mark.parametrize("package", ALLOWED)
def test_package_init_files_are_empty(package):
    for path in modules(package):
        if path.name == "__init__.py":
            assert not path.read_text(), path.relative_to(ROOT)


def test_nobody_imports_the_entry_points():
    for package in ALLOWED:
        for path in modules(package):
            roots = {name.split(".")[0] for name in imported(path)}
            assert not roots & {"train_ddp", "evaluate", "predict"}, path.relative_to(ROOT)
