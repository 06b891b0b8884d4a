"""Training the relational module alone, on features of a frozen backbone."""

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open

from evaluate import main as evaluate
from evaluation.trained import load_network
from pipelines.augmentation import AugmentedView
from pipelines.config import AugmentConfig, Decoding, InputConfig
from pipelines.graph import graph_inputs, image_pipeline
from pipelines.pack import Pack
from pipelines.pairs import PairData, Share
from pipelines.selection import Selection
from runtime.checkpoint import load_weights, newest
from tests.commands import Command
from tests.common import ROOT, flip, tiny_run
from tests.training.runs import assert_same_weights, forget_newest, logged
from training.frozen import FeatureLoader

GROUPS = ["--data.sampling.kind=classes", "--data.sampling.classes=3", "--data.sampling.groups=4"]
BY_DAY = {"domains": ["day"]}
IMAGES = 30


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A feature cache that the runs share."""
    return tmp_path_factory.mktemp("features")


@pytest.fixture
def config_file(pack_path, cache, tmp_path):
    loop = {"backbone": "frozen", "views": 3, "feature_cache": str(cache)}
    model = {"similarity_start": True}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tiny_run(pack_path, data=BY_DAY, train=loop, model=model)))
    return path


def files(folder):
    return sorted(folder.glob("*.views.safetensors"))


def stored(folder):
    (path,) = files(folder)
    with safe_open(path, framework="pt") as file:
        return file.get_tensor("features")


def source(images, augmentation):
    return lambda info: graph_inputs(images, augmentation)


def test_a_run_trains_the_relation_and_keeps_the_backbone(train, tmp_path, capsys):
    torch.manual_seed(0)
    assert train() == 0
    out = capsys.readouterr().out
    assert "the backbone is frozen: features of 3 augmented views of each image" in out
    first = load_weights(tmp_path / "run" / "checkpoints" / "step-00000003").weights
    last = load_weights(tmp_path / "run").weights
    changed = {name for name in last if not torch.equal(first[name], last[name])}
    assert changed == {name for name in last if name.startswith("relation.")} & changed != set()
    state = newest(tmp_path / "run").training["optimizer"]["state"]
    assert len(state) == sum(name.startswith("relation.") for name in last)
    assert logged(tmp_path / "run")[-1]["damaged_samples"] == 0


def test_a_view_is_what_the_augmented_image_gives(train, pack_path, tmp_path):
    folder = tmp_path / "own"
    train("--train.iterations=1", f"--train.feature_cache={folder}")
    trained, pack = load_network(tmp_path / "run", torch.device("cpu")), Pack(pack_path)
    rows = Selection(domains=("day",)).rows(pack)
    features = stored(folder)
    assert features.shape == (3, len(rows), trained.network.relation.proj.in_features)
    preprocessing = trained.network.preprocessing
    decoding = Decoding(preprocessing, InputConfig(device="cpu", num_threads=1))
    for number, of_view in enumerate(features):
        drawn = AugmentedView(AugmentConfig(), number).draw(
            preprocessing.image_size, rows, pack.index.width[rows], pack.index.height[rows]
        )
        pipeline = image_pipeline(source(pack.read(rows), drawn), decoding, batch_size=IMAGES)
        images = torch.from_dlpack(pipeline.run()[0].as_tensor()).permute(0, 3, 1, 2)
        with torch.no_grad():
            expected = trained.network.backbone(images)
        torch.testing.assert_close(of_view.float(), expected, rtol=2e-3, atol=1e-4)
    assert (features[0] != features[1]).any(dim=1).all()


def test_one_view_is_that_of_evaluation(train, pack_path, tmp_path):
    folder = tmp_path / "own"
    train("--train.iterations=1", "--train.views=1", f"--train.feature_cache={folder}")
    protocol = tmp_path / "all.yaml"
    part = [{"domains": ["day"]}]
    target = {"reference": part, "test": [{"domains": ["night"]}]}
    classes = ["ant", "bee", "cat", "dog", "eel"]
    content = {"name": "t", "dataset": "imagefolder", "known": classes[:4]}
    target["reference"] = [{"domains": ["day"], "classes": classes[:4]}]
    protocol.write_text(yaml.safe_dump({**content, "targets": {"night": target}}))
    options = ["--protocol", protocol, "--pack", pack_path, "--checkpoint", tmp_path / "run"]
    options += ["--target=night", "--out", tmp_path / "out", "--cache", folder, "--device=cpu"]
    assert evaluate([str(option) for option in options]) == 0
    (path,) = {*folder.glob("*.safetensors")} - {*files(folder)}
    with safe_open(path, framework="pt") as file:
        rows, values = file.get_tensor("rows").numpy(), file.get_tensor("features")
    selected = Selection(domains=("day",)).rows(Pack(pack_path))
    both = np.isin(selected, rows)
    assert both.sum() == 24
    expected = values[np.searchsorted(rows, selected[both])]
    ours = stored(folder)[0][torch.from_numpy(both)].float()
    torch.testing.assert_close(ours, expected, rtol=2e-3, atol=1e-4)


def test_a_batch_has_the_features_of_its_images_in_views_drawn_by_hashing(pack_path):
    data = PairData.select(Pack(pack_path), [Selection(("day",))], seed=0)
    number = torch.arange(4 * IMAGES, dtype=torch.float16).view(4, IMAGES, 1)
    loader = FeatureLoader(data, number, Share(1024, 1, 2), start_step=2)
    batch, expected = next(loader), data.draw(2 * 1024 + 512, 512)
    view, image = np.divmod(batch.images[:, 0].long().numpy(), IMAGES)
    np.testing.assert_array_equal(data.rows[image], batch.rows)
    np.testing.assert_array_equal(image, expected.pairs.images)
    assert (np.bincount(view) > 1024 / 4 * 0.8).all()
    again = next(FeatureLoader(data, number, Share(1024, 1, 2), start_step=2))
    assert torch.equal(again.images, batch.images)
    assert not torch.equal(next(loader).images, batch.images)


OPTIONS = [
    [],
    GROUPS,
    [*GROUPS, "--train.pairs_at_once=10", "--model.similarity_start=whitened"],
    ["--train.precision=bfloat16", "--train.views=1", "--train.accumulate=2"],
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options)[-40:])
def test_resuming_equals_an_uninterrupted_run_bit_for_bit(train, cache, tmp_path, options):
    assert train(*options) == 0
    before = files(cache)
    forget_newest(tmp_path / "run", tmp_path / "parts")
    assert train(*options, run="parts") == 0
    assert_same_weights(tmp_path / "run", tmp_path / "parts", rtol=0, atol=0)
    assert files(cache) == before


def test_two_ranks_train_as_one_and_extract_the_same_features(train, runner, config_file, tmp_path):
    train(f"--train.feature_cache={tmp_path / 'one'}")
    words = ["--nproc-per-node=2", "--standalone", "--run-path", "--start-method=fork"]
    words += [ROOT / "train_ddp.py", "--config", config_file, "--out", tmp_path / "ranks"]
    words += [f"--train.feature_cache={tmp_path / 'two'}"]
    command = Command("train", "torch.distributed.run", list(map(str, words)), ROOT, timeout=200)
    (outcome,) = runner.run(command)
    assert outcome.status == 0, outcome
    features = [stored(tmp_path / name).float() for name in ("one", "two")]
    torch.testing.assert_close(*features, rtol=1e-3, atol=1e-4)
    assert_same_weights(tmp_path / "run", tmp_path / "ranks", rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_compiled_training_equals_plain_training(train, tmp_path):
    train("--train.iterations=2")
    assert train("--train.iterations=2", "--train.compile=true", run="compiled") == 0
    assert_same_weights(tmp_path / "run", tmp_path / "compiled", rtol=1e-3, atol=1e-5)


@pytest.fixture(scope="module")
def second_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("second")


@pytest.fixture
def kept(train, second_cache):
    """A cache with the features of the configuration, and of what else the module has added."""
    if not files(second_cache):
        train("--train.iterations=1", f"--train.feature_cache={second_cache}", run="first")
    return second_cache


@pytest.mark.parametrize(
    "options",
    [
        ["--seed=1"],  # initial weights of the backbone
        ["--input.image_size=64"],
        ["--augment.scale=[0.5, 1.0]"],
        ["--data.classes=[ant, bee, cat]"],
        ["--train.views=2"],
        ["--train.precision=bfloat16"],
    ],
    ids=lambda options: options[0],
)
def test_features_of_something_else_are_not_taken(train, kept, tmp_path, options):
    before = files(kept)
    assert train("--train.iterations=1", f"--train.feature_cache={kept}", *options) == 0
    assert len(files(kept)) == len(before) + 1


def test_a_damaged_cache_is_reported_and_extracted_again(train, tmp_path, capsys):
    options = ["--train.iterations=1", f"--train.feature_cache={tmp_path / 'own'}"]
    train(*options)
    (path,) = files(tmp_path / "own")
    intact = path.read_bytes()
    flip(path, -1000)
    capsys.readouterr()
    assert train(*options, run="again") == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ignored: {path}")
    assert line.endswith("its features are recomputed")
    assert path.read_bytes() == intact


def test_a_dry_run_counts_no_backbone_and_extracts_nothing(train, tmp_path, capsys):
    options = ["--dry-run", f"--train.feature_cache={tmp_path / 'own'}"]
    assert train(*options) == 0
    out = capsys.readouterr().out
    assert not (tmp_path / "own").exists()
    train("--train.iterations=1")
    last = load_weights(tmp_path / "run").weights
    count = sum(last[name].numel() for name in last if name.startswith("relation."))
    assert f"{count:,} parameters" in out


def test_a_frozen_run_is_validated(train, protocol_file, tmp_path):
    assert train(f"--validation.protocol={protocol_file}", "--train.iterations=1") == 0
    assert 0 <= logged(tmp_path / "run")[-1]["auroc"] <= 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--task=classification"], "train.backbone frozen needs task: relation"),
        (["--train.views=0"], "train.views"),
        (["--train.backbone=thawed"], "train.backbone must be one of trained, frozen"),
        (["--train.feature_cache=/dev/null/features"], "set train.feature_cache to another folder"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_exit_2(train, error_line, options, words):
    assert train(*options) == 2
    assert words in error_line()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--train.backbone=trained"], "started with train.backbone frozen, now it is trained"),
        (["--train.views=2"], "started with train.views 3, now it is 2"),
    ],
)
def test_another_training_is_not_continued(train, capsys, error_line, options, words):
    train("--train.iterations=1")
    capsys.readouterr()
    assert train(*options) == 2
    assert words in error_line()
