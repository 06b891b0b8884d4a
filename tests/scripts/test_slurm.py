"""The job scripts, with stand-ins for Slurm's commands that write down how they were called."""

import os
import re
import signal
import subprocess

import pytest

from tests.common import ROOT

SCRIPTS = sorted((ROOT / "scripts" / "slurm").glob("*.sbatch"))
RECORD = 'echo "$(basename "$0") ${SRUN_CPUS_PER_TASK:-} $*" >> "$CALLS"\n'


@pytest.fixture
def cluster(tmp_path):
    """Starts a job script as Slurm does, ``training`` standing for the step that trains."""
    commands = tmp_path / "bin"
    commands.mkdir()
    started = []

    def submit(script, *arguments, training="exit 0"):
        stand_ins = {
            "srun": f'case "$*" in *train_ddp.py*) {training};; esac',
            "scontrol": 'if [ "$1" = show ]; then printf "node%s\\n" {1..9999}; fi',
            "scancel": ":",
        }
        for name, body in stand_ins.items():
            (commands / name).write_text(f"#!/bin/bash\n{RECORD}{body}\n")
            (commands / name).chmod(0o755)
        environment = {
            "PATH": f"{commands}:{os.environ['PATH']}",
            "CALLS": str(tmp_path / "calls"),
            "RUN": str(tmp_path / "run"),
            "PYTHON": "python",
            "SLURM_JOB_ID": "7",
            "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_NNODES": "2",
            "SLURM_CPUS_PER_TASK": "96",
        }
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        job = subprocess.Popen(
            ["bash", str(ROOT / "scripts" / "slurm" / script), *map(str, arguments)],
            cwd=ROOT,
            env=environment,
            text=True,
            **pipes,
        )
        started.append(job)
        return job

    yield submit
    for job in started:
        if job.poll() is None:
            job.kill()
        job.communicate()


@pytest.fixture
def run(tmp_path):
    """The run's folder, with the marker of an earlier interruption."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "interrupted.json").write_text('{"step": 1}\n')
    return folder


def calls(tmp_path):
    return (tmp_path / "calls").read_text().splitlines()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse_and_hand_their_cores_to_srun(script):
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text()
    assert text.index("export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK") < text.index("srun ")


def test_training_gets_its_options_the_run_and_the_staged_pack(cluster, run, tmp_path):
    job = cluster("train.sbatch", "--config", "recipe.yaml", "--train.clip=1")
    assert job.wait(60) == 0
    stage, train = (line for line in calls(tmp_path) if line.startswith("srun"))
    assert stage.startswith("srun 96 --ntasks-per-node=1 python -m sharding stage packs/imagenet")
    assert train.startswith("srun 96 ")
    assert "--rdzv-endpoint=node1:29400" in train
    options = train.split("train_ddp.py ")[1]
    assert re.fullmatch(
        rf"--config recipe.yaml --train.clip=1 --out={run} "
        r"--data.pack=\S+/resend/imagenet --input.device=gpu",
        options,
    )
    assert not (run / "interrupted.json").exists()


def test_the_status_of_failed_training_is_the_job_s(cluster, run, tmp_path):
    assert cluster("train.sbatch", training="exit 1").wait(60) == 1
    assert not any("requeue" in line for line in calls(tmp_path))


def test_a_signaled_job_stops_its_step_and_is_requeued(cluster, run, tmp_path):
    """The step ends when scancel has been called, leaving its marker and torchrun's status 1."""
    training = (
        'echo training; while ! grep -q scancel "$CALLS"; do sleep 0.05; done; '
        'echo \'{"step": 9}\' > "$RUN/interrupted.json"; exit 1'
    )
    job = cluster("train.sbatch", training=training)
    assert job.stdout.readline() == "training\n"
    job.send_signal(signal.SIGUSR1)
    out, _ = job.communicate(timeout=60)
    assert job.returncode == 75, out
    assert 'interrupted: {"step": 9}; requeued' in out
    assert "scancel 96 --signal=TERM 7" in calls(tmp_path)
    assert calls(tmp_path)[-1] == "scontrol 96 requeue 7"


def test_evaluation_passes_its_options_on(cluster, tmp_path):
    assert cluster("evaluate.sbatch", "--protocol", "a.yaml").wait(60) == 0
    (call,) = calls(tmp_path)
    assert call.startswith("srun 96 python -m torch.distributed.run --standalone")
    assert call.endswith("evaluate.py --protocol a.yaml --device gpu")
