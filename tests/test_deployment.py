"""The image and the cluster's manifest: linted, and their commands tried."""

import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from runtime.config import load_config
from tests.common import ROOT
from training.config import TrainConfig

MANIFEST = ROOT / "scripts/kubernetes/train.yaml"


@pytest.fixture
def job_set():
    return yaml.safe_load(MANIFEST.read_text())


def test_the_dockerfile_has_no_lint():
    hadolint = Path(sys.executable).with_name("hadolint")
    found = subprocess.run(
        [hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout) == (0, "")


def test_the_image_gets_every_requirement_and_one_dali():
    """What the Dockerfile runs, in the folder that it runs it in."""
    printed = subprocess.run(
        [sys.executable, ROOT / "scripts/requirements.py", "cuda120", "s3"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    found = printed.stdout.split()
    assert {"torch", "webdataset", "s3fs"} < {*found}
    assert [name for name in found if "dali" in name] == ["nvidia-dali-cuda120"]


def test_the_jobs_of_the_manifest_are_valid(job_set):
    for part in job_set["spec"]["replicatedJobs"]:
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": part["name"]}}
        kubernetes_validate.validate({**job, **part["template"]}, "1.30", strict=True)


def test_the_manifest_has_as_many_pods_as_torchrun_has_nodes(job_set):
    (part,) = job_set["spec"]["replicatedJobs"]
    spec = part["template"]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    options = dict(word.split("=") for word in container["args"] if word.startswith("--"))
    assert spec["completions"] == spec["parallelism"] == int(options["--nnodes"])
    assert container["resources"]["limits"]["nvidia.com/gpu"] == int(options["--nproc-per-node"])
    first_pod = f"{job_set['metadata']['name']}-{part['name']}-0-0.{job_set['metadata']['name']}"
    assert options["--rdzv-endpoint"].startswith(f"{first_pod}:")


def test_the_manifest_trains_with_options_that_exist(job_set, monkeypatch):
    (part,) = job_set["spec"]["replicatedJobs"]
    (container,) = part["template"]["spec"]["template"]["spec"]["containers"]
    arguments = container["args"][container["args"].index("train_ddp.py") + 1 :]
    monkeypatch.chdir(ROOT)
    config = load_config(TrainConfig, arguments, prog="train_ddp.py", description="")
    assert str(config.data.pack) == "s3://bucket/packs/imagenet"
