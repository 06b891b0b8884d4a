import numpy as np
import pytest
import torch

from evaluation import bfloat16
from evaluation.extractor import ExtractionConfig, FeatureExtractor
from evaluation.trained import load_network
from pipelines.config import InputConfig
from pipelines.pack import Pack
from runtime.distributed import Process
from runtime.errors import ConfigError

ALONE = Process(0, 0, 1, torch.device("cpu"))


def error(pack_path, run_folder, precision):
    pack = Pack(pack_path)
    config = ExtractionConfig(InputConfig(device="cpu"), precision=precision)
    network = load_network(run_folder, ALONE.device)
    extractor = FeatureExtractor(network, pack, ALONE, config)
    return bfloat16.logit_error(extractor, np.arange(len(pack.index)))


def test_float32_differs_from_itself_by_nothing(pack_path, run_folder):
    assert error(pack_path, run_folder, "float32") == pytest.approx(0, abs=1e-6)


def test_a_precision_that_changes_the_logits_too_much_is_refused(
    pack_path, run_folder, monkeypatch
):
    monkeypatch.setattr(bfloat16, "_LIMIT", 0.0)
    with pytest.raises(ConfigError, match="use --precision float32"):
        error(pack_path, run_folder, "bfloat16")
