"""A run at Weights & Biases."""

import importlib.util
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from runtime.errors import ConfigError, first_line
from runtime.untrusted import read_text
from training.run_files import write_report

_FINISH_SECONDS = 60  # to send the rest when a run ends


def check_installed(project: str) -> None:
    """Raise ConfigError if metrics are to be logged to ``project`` and wandb is not installed."""
    if not project:
        return
    spec = importlib.util.find_spec("wandb")
    # wandb's own folder of that name, in the working directory, looks like a package too
    if spec is None or spec.origin is None:
        raise ConfigError(
            "log.wandb needs the package wandb; run pip install wandb, or leave log.wandb empty"
        )


class WandbRun:
    """Logs to a run of ``project``, the same one whenever ``run`` is continued.

    Its id is kept in ``RUN/wandb.json``. The environment variables of wandb apply:
    ``WANDB_MODE=offline`` keeps everything in ``RUN/wandb``, for ``wandb sync``.

    Args:
        run: the run's folder.
        project: name of the project.
        settings: the run's configuration.

    Attributes:
        place: where to look at it.

    Raises:
        ConfigError: wandb refuses to begin, for instance without an API key, or the id is damaged.
        LogError: the id cannot be written.
    """

    def __init__(self, run: Path, project: str, settings: Mapping[str, Any]) -> None:
        import wandb  # takes seconds

        options = wandb.Settings(console="off", silent=True, finish_timeout=_FINISH_SECONDS)
        try:
            self._run = wandb.init(
                project=project,
                id=_run_id(run),
                resume="allow",
                dir=str(run),
                config=dict(settings),
                allow_val_change=True,
                settings=options,
            )
        except wandb.Error as error:
            raise ConfigError(
                f"log.wandb: {first_line(error)}; log in, or set WANDB_MODE=offline in the "
                "environment"
            ) from error
        # An axis of our own: a run that continues from its last checkpoint repeats some steps.
        self._run.define_metric("*", step_metric="step")
        self._image = wandb.Image
        self.place = f"{run / 'wandb'} (offline)" if self._run.offline else self._run.url

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log ``values`` measured after ``step`` steps."""
        self._run.log({"step": step, **values})

    def write_image(self, step: int, name: str, image: Image.Image) -> None:
        """Log a picture."""
        self._run.log({"step": step, name: self._image(image)})

    def close(self, *, failed: bool) -> None:
        """Send what is left."""
        self._run.finish(exit_code=int(failed))


def _run_id(run: Path) -> str:
    """The id in ``RUN/wandb.json``, which is made where there is none."""
    path = run / "wandb.json"
    try:
        own = json.loads(read_text(path))["id"]
    except FileNotFoundError:
        own = secrets.token_hex(4)
        write_report(path, {"id": own})
    except (OSError, ValueError, RecursionError, TypeError, KeyError) as error:
        raise ConfigError(
            f"cannot read {path}: {first_line(error)}; delete it to log to a new W&B run"
        ) from error
    return str(own)
