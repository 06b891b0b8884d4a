"""What the node is, and what the tests that need a GPU say on it."""

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import xml.etree.ElementTree
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from benchmarks.gpu.node import Budget, Node, Row, Value

_ROOT = Path(__file__).parents[2]
_TESTS_GRACE = 60.0


def versions(node: Node, budget: Budget) -> Iterator[Row]:
    """The libraries' versions, the GPU and the cores."""
    yield Row(
        "software",
        {
            "python": platform.python_version(),
            "torch": torch.__version__,
            **{name: importlib.metadata.version(name) for name in ("torchvision", "timm")},
        },
    )
    dali = {
        distribution.name: distribution.version
        for distribution in importlib.metadata.distributions()
        if re.match(r"nvidia-(dali|nvjpeg-|nvimgcodec)", distribution.name)
    }
    num_dali = sum(name.startswith("nvidia-dali") for name in dali)
    yield Row("DALI, exactly one", dict(sorted(dali.items())), passed=num_dali == 1)
    yield Row("CUDA", _cuda())
    cores: dict[str, Value] = {
        "cores of this process": node.num_cores,
        "of the machine": os.cpu_count() or 0,
        "CPU": _cpu_name(),
    }
    yield Row("CPU", cores)
    if node.device == "gpu":
        properties = torch.cuda.get_device_properties(0)
        yield Row(
            "GPU",
            {
                "name": properties.name,
                "GiB": properties.total_memory / 2**30,
                "multiprocessors": properties.multi_processor_count,
                "visible": torch.cuda.device_count(),
            },
        )
    else:
        yield Row("GPU", {"result": "n/a on CPU"})


def _cuda() -> dict[str, Value]:
    nccl = ".".join(map(str, torch.cuda.nccl.version()))
    return {
        "driver": _driver(),
        "torch is built for": torch.version.cuda or "none",
        "cuDNN": _cudnn(),
        "NCCL": nccl,
    }


def _cudnn() -> str:
    version = torch.backends.cudnn.version() or 0
    return ".".join(map(str, (version // 10000, version // 100 % 100, version % 100)))


def _driver() -> str:
    """The NVIDIA driver's version, as its kernel module says."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text()
    except OSError:
        return "none"
    found = re.search(r"\s(\d+\.\d+(\.\d+)?)\s", text)
    return found[1] if found else "unknown"


def _cpu_name() -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


def gpu_tests(node: Node, budget: Budget) -> Iterator[Row]:
    """The tests marked ``gpu``."""
    if node.device == "cpu":
        yield Row("pytest -m gpu", {"result": "n/a on CPU"})
        return
    yield run_tests(["-m", "gpu"], node.folder / "tests.xml", budget.seconds_left + _TESTS_GRACE)


def run_tests(selection: Sequence[str], report: Path, seconds: float) -> Row:
    """Run pytest on ``selection``; passed where at least one test passed and none failed."""
    command = [sys.executable, "-m", "pytest", *selection, f"--junitxml={report}"]
    what = f"pytest {' '.join(selection)}"
    try:
        subprocess.run(command, cwd=_ROOT, timeout=seconds)
    except subprocess.TimeoutExpired:
        return Row(what, {"result": f"not finished in {seconds:.0f} s"}, passed=False)
    (suite,) = xml.etree.ElementTree.parse(report).getroot().iter("testsuite")
    count = {name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")}
    failed = count["failures"] + count["errors"]
    passed = count["tests"] - failed - count["skipped"]
    values: dict[str, Value] = {"passed": passed, "failed": failed, "skipped": count["skipped"]}
    return Row(what, values, passed=passed > 0 and not failed)
