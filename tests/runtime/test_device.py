import pytest
import torch

from runtime import device
from runtime.device import dali_device, resolve_device
from runtime.errors import ConfigError


@pytest.fixture
def gpus(monkeypatch, tmp_path):
    """Sets how many GPUs torch sees and whether the machine has NVIDIA's driver."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def machine(count, driver):
        file = tmp_path / "version"
        file.touch()
        monkeypatch.setattr(device, "_DRIVER_FILES", (file,) if driver else ())
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return machine


def test_auto_is_each_process_s_gpu_or_the_cpu_where_there_is_no_driver(gpus):
    gpus(2, driver=True)
    assert resolve_device("auto", 1) == torch.device("cuda", 1)
    assert resolve_device("cpu", 1) == torch.device("cpu")
    gpus(0, driver=False)
    assert resolve_device("auto") == torch.device("cpu")


def test_auto_is_an_error_where_a_driver_is_present_and_torch_sees_no_gpu(gpus):
    gpus(0, driver=True)
    for choose in (resolve_device, dali_device):
        with pytest.raises(ConfigError, match=r"fits the driver .* or use --device cpu") as caught:
            choose("auto")
        assert "\n" not in str(caught.value)
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_gpus_hidden_on_purpose_ask_for_the_cpu(gpus, monkeypatch, hidden):
    gpus(0, driver=True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert resolve_device("auto") == torch.device("cpu")
    with pytest.raises(ConfigError, match="CUDA_VISIBLE_DEVICES hides"):
        resolve_device("gpu")


def test_a_gpu_that_is_not_there_is_an_error(gpus):
    gpus(0, driver=False)
    with pytest.raises(ConfigError, match="no NVIDIA driver"):
        resolve_device("gpu")
    gpus(1, driver=True)
    with pytest.raises(ConfigError, match="process 1 of this machine has no GPU of its own"):
        resolve_device("gpu", 1)
