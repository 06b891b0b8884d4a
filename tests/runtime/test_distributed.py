import copy

import pytest
import timm
import torch

from runtime import distributed
from runtime.distributed import Process, distribute


@pytest.mark.parametrize(
    "name", ["resnet18", "efficientnet_b0", "densenet121", "resnetv2_50", "regnety_002"]
)
def test_synchronized_batchnorm_computes_what_the_network_computed(name, monkeypatch):
    """The conversion for several GPUs keeps the activation that timm's BatchNormAct2d contains."""
    monkeypatch.setattr(distributed, "DistributedDataParallel", lambda network, **_: network)
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=0).eval()
    before = copy.deepcopy(network)
    converted = distribute(network, Process(0, 0, 2, torch.device("cuda", 0)))
    assert any(isinstance(m, torch.nn.SyncBatchNorm) for m in converted.modules())
    assert converted.state_dict().keys() == before.state_dict().keys()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(converted(images), before(images))
