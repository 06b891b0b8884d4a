"""Which network an evaluation uses: a run, a checkpoint of it, or the original's files."""

import resource
import shutil

import pytest
import torch

from evaluation.trained import Provenance, TrainedNetwork, load_network, read_checkpoint
from model.config import ModelConfig, Preprocessing
from model.network import build_bare, build_network
from runtime import checkpoint
from runtime.errors import CheckpointError
from runtime.original import export_original, import_original

CPU = torch.device("cpu")


def provenance(path):
    return Provenance.of(read_checkpoint(path))


def test_the_newest_checkpoint_is_used_and_its_step_known(run_folder, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(run_folder, run)
    first = provenance(run)
    assert (first.step, first.verified) == (1, True)
    newest = run / "checkpoints" / "step-00000007"
    shutil.copytree(run / "checkpoints" / "step-00000001", newest)
    assert provenance(run).step == 7
    weights = newest / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match="step-00000007") as caught:
        provenance(run)
    assert "\n" not in str(caught.value)
    assert provenance(run / "checkpoints" / "step-00000001").sha256 == first.sha256


def test_original_files_are_evaluated_without_importing_them(tmp_path):
    torch.manual_seed(0)
    model = {"backbone": "resnet18", "embed_dim": 24, "depth": 1, "num_heads": 12}
    weights = build_network(ModelConfig(**model)).state_dict()
    checkpoint.save(tmp_path / "run", 4, weights=weights, config={"model": model}, metrics={})
    export_original(tmp_path / "run", tmp_path / "original")
    import_original(tmp_path / "original", tmp_path / "imported")
    digests = {provenance(tmp_path / name).sha256 for name in ("run", "original", "imported")}
    assert len(digests) == 1


def test_a_configuration_larger_than_its_weights_is_refused_before_it_takes_memory(
    run_folder, tmp_path
):
    saved = checkpoint.load_weights(run_folder)
    config = saved.config | {"model": saved.config["model"] | {"embed_dim": 8192, "depth": 128}}
    config["model"]["num_heads"] = 8
    checkpoint.save(tmp_path, 1, weights=saved.weights, config=config, metrics={})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match="embed_dim and depth"):
        load_network(tmp_path, CPU)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB


@pytest.mark.parametrize("kind", ["nothing", "empty folder", "text file", "one of the two files"])
def test_what_is_not_a_checkpoint_is_one_line(tmp_path, kind):
    path = tmp_path / "x"
    if kind != "nothing":
        path.write_text("x") if kind == "text file" else path.mkdir()
    if kind == "one of the two files":
        torch.save({"a": torch.zeros(1)}, path / "feature_extractor.pkl")
    with pytest.raises(CheckpointError, match=str(path)) as caught:
        load_network(path, CPU)
    assert "\n" not in str(caught.value)


def test_a_bug_in_building_the_network_is_not_blamed_on_the_checkpoint(run_folder, monkeypatch):
    def broken(*arguments, **options):
        raise ValueError("shapes do not match")

    monkeypatch.setattr("evaluation.trained.build_network", broken)
    with pytest.raises(ValueError, match="shapes do not match"):
        load_network(run_folder, CPU)


def test_a_network_is_made_ready_whose_traced_copy_holds_constants():
    """Those of Swin's windows have five dimensions, for which there is no channels-last layout."""
    torch.manual_seed(0)
    network = build_bare("swin_tiny_patch4_window7_224", Preprocessing(image_size=56))
    ready = TrainedNetwork.of(network, CPU)
    images = torch.randn(2, 3, 56, 56)
    torch.testing.assert_close(ready.extractor(images), ready.network.backbone(images))


def test_the_fast_copy_keeps_the_layout_that_convolutions_are_fast_in():
    network = TrainedNetwork.of(build_bare("resnet10t", Preprocessing(32)), CPU)
    for module in network.extractor.modules():
        if isinstance(module, torch.nn.Conv2d):
            assert module.weight.is_contiguous(memory_format=torch.channels_last)
