import numpy as np
import pytest
import torch

from evaluation import bfloat16 as precision
from evaluation.trained import load_network
from pipelines.config import InputConfig
from pipelines.pack import Pack
from runtime.distributed import Process
from runtime.errors import ConfigError

ALONE = Process(0, 0, 1, torch.device("cpu"))


def error(pack_path, run_folder, dtype):
    pack = Pack(pack_path)
    trained = load_network(run_folder, ALONE.device)
    config = InputConfig(device="cpu")
    return precision.logit_error(trained, pack, np.arange(len(pack.index)), ALONE, config, dtype)


def test_float32_differs_from_itself_by_nothing(pack_path, run_folder):
    assert error(pack_path, run_folder, torch.float32) == pytest.approx(0, abs=1e-6)


def test_a_precision_that_changes_the_logits_too_much_is_refused(
    pack_path, run_folder, monkeypatch
):
    monkeypatch.setattr(precision, "_LIMIT", 0.0)
    with pytest.raises(ConfigError, match="use --precision float32"):
        error(pack_path, run_folder, torch.bfloat16)
