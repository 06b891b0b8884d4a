"""What is read of a tree, what is left out, and that the user is told."""

import struct

import pytest
from PIL import Image
from published_trees import CARS_CLASSES, MAKERS, PATTERNNET_CLASSES, SUN397_CLASSES

from runtime.errors import PackError
from sharding.__main__ import main
from sharding.format.opening import open_pack
from sharding.listing import write_listing
from sharding.shard_plan import PackOptions
from sharding.sources.imagefolder import imagefolder
from sharding.sources.imagenet.forms import imagenet
from sharding.sources.registry import SOURCES

SYNSETS = [f"n{number * 7:08d}" for number in range(1000)]
SOLUTION_HEADER = "ImageId,PredictionString\n"


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def sources(dataset):
    return [sample.source for sample in dataset.samples()]


@pytest.fixture(scope="module")
def training_tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("imagenet")
    for synset in SYNSETS:
        touch(root / "Data" / "CLS-LOC" / "train" / synset / f"{synset}_1.JPEG")
    return root


@pytest.fixture
def imagenet_tree(training_tree, tmp_path):
    """ImageNet's training folders as links; a test may add others."""
    base = tmp_path / "Data" / "CLS-LOC"
    base.mkdir(parents=True)
    (base / "train").symlink_to(training_tree / "Data" / "CLS-LOC" / "train")
    return tmp_path


def test_imagenets_validation_folders_are_a_split_with_the_same_labels(imagenet_tree):
    for synset in SYNSETS:
        touch(imagenet_tree / "Data" / "CLS-LOC" / "val" / synset / "v.JPEG")
    dataset = imagenet(imagenet_tree)
    assert dataset.splits == ("train", "val")
    assert not dataset.notes
    samples = list(dataset.samples())
    assert [sample.split for sample in samples] == [0] * 1000 + [1] * 1000
    for sample in samples:
        assert dataset.classes[sample.label] == sample.source.split("/")[1]


def test_torchvisions_layout_of_imagenet_is_read(training_tree, tmp_path):
    for split in ("train", "val"):
        (tmp_path / split).symlink_to(training_tree / "Data" / "CLS-LOC" / "train")
    assert imagenet(tmp_path).splits == ("train", "val")


def test_without_validation_images_imagenet_is_its_training_split(imagenet_tree):
    dataset = imagenet(imagenet_tree)
    assert dataset.splits == ("train",)
    assert sources(dataset)[1] == f"{SYNSETS[1]}/{SYNSETS[1]}_1.JPEG"


def test_no_shard_holds_training_and_validation_images(imagenet_tree, tmp_path):
    training = write_listing(imagenet(imagenet_tree), PackOptions(), tmp_path / "training")
    for synset in SYNSETS:
        touch(imagenet_tree / "Data" / "CLS-LOC" / "val" / synset / "v.JPEG")
    options = PackOptions(shard_size=512_000)
    listing = write_listing(imagenet(imagenet_tree), options, tmp_path / "both")
    assert listing.plan.num_shards > 4
    for number in range(listing.plan.num_shards):
        assert len(set(listing.records["split"][listing.shard(number)].tolist())) == 1
    assert listing.order[:1000].tolist() == training.order.tolist()
    assert sorted(listing.order.tolist()) == list(range(2000))


def test_kaggles_flat_validation_images_take_their_labels_from_its_table(imagenet_tree):
    val = imagenet_tree / "Data" / "CLS-LOC" / "val"
    touch(val / "ILSVRC2012_val_00000002.JPEG")
    touch(val / "ILSVRC2012_val_00000001.JPEG")
    (imagenet_tree / "LOC_val_solution.csv").write_text(
        SOLUTION_HEADER
        + f"ILSVRC2012_val_00000002,{SYNSETS[5]} 85 1 499 272\n"
        + f"ILSVRC2012_val_00000001,{SYNSETS[9]} 1 2 3 4 {SYNSETS[9]} 5 6 7 8\n"
        + f"ILSVRC2012_val_00000003,{SYNSETS[0]} 1 2 3 4\n"
    )
    dataset = imagenet(imagenet_tree)
    found = [sample for sample in dataset.samples() if sample.split == 1]
    assert [(sample.source, sample.label) for sample in found] == [
        ("val/ILSVRC2012_val_00000001.JPEG", 9),
        ("val/ILSVRC2012_val_00000002.JPEG", 5),
        ("val/ILSVRC2012_val_00000003.JPEG", 0),
    ]
    assert not dataset.notes
    with pytest.raises(OSError, match="No such file"):
        dataset.read(found[2])  # listed by the table alone, so that the pack names it as rejected


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (f"{SOLUTION_HEADER}a,n99999999 1 2 3 4\n", r"line 2: expected"),
        (f"a,{SYNSETS[0]} 1 2 3 4\nb,{SYNSETS[0]}\n", r"line 2: expected"),
        (f"{SOLUTION_HEADER}b,{SYNSETS[0]} 1 2 3 4\n", r"no label for 1 files .* a\.JPEG"),
    ],
    ids=["unknown-synset", "no-header", "missing-image"],
)
def test_a_table_that_does_not_label_the_validation_images_is_an_error(
    table, message, imagenet_tree
):
    touch(imagenet_tree / "Data" / "CLS-LOC" / "val" / "a.JPEG")
    (imagenet_tree / "LOC_val_solution.csv").write_text(table)
    with pytest.raises(PackError, match=message):
        imagenet(imagenet_tree)


def test_flat_validation_images_without_labels_are_left_out_with_a_note(imagenet_tree):
    touch(imagenet_tree / "Data" / "CLS-LOC" / "val" / "ILSVRC2012_val_00000001.JPEG")
    touch(imagenet_tree / "Data" / "CLS-LOC" / "test" / "ILSVRC2012_test_00000001.JPEG")
    dataset = imagenet(imagenet_tree)
    assert dataset.splits == ("train",)
    flat, test = dataset.notes
    assert "val has no class folders and is left out; put LOC_val_solution.csv into" in flat
    assert "test/ left out" in test


def test_validation_folders_beside_the_training_folder_are_noted(imagenet_tree):
    touch(imagenet_tree / "Data" / "CLS-LOC" / "val" / SYNSETS[0] / "v.JPEG")
    (note,) = imagenet(imagenet_tree / "Data" / "CLS-LOC" / "train").notes
    assert "val/ left out" in note


def test_incomplete_validation_folders_are_an_error(imagenet_tree):
    touch(imagenet_tree / "Data" / "CLS-LOC" / "val" / SYNSETS[0] / "v.JPEG")
    with pytest.raises(PackError, match=rf"val: expected the 1000 folders .*{SYNSETS[1]}"):
        imagenet(imagenet_tree)


def test_tiny_imagenets_images_folders_are_read(tmp_path):
    for class_ in ("n01", "n02"):
        touch(tmp_path / "train" / class_ / "images" / f"{class_}_0.JPEG")
        touch(tmp_path / "train" / class_ / f"{class_}_boxes.txt")
    touch(tmp_path / "val" / "images" / "val_0.JPEG")
    touch(tmp_path / "val" / "val_annotations.txt")
    touch(tmp_path / "test" / "images" / "test_0.JPEG")
    dataset = imagefolder(tmp_path)
    assert (dataset.classes, dataset.domains) == (("n01", "n02"), ("default",))
    assert dataset.splits == ("train",)
    assert sources(dataset) == [f"train/{name}/images/{name}_0.JPEG" for name in dataset.classes]
    (note,) = dataset.notes
    assert "test/, val/ left out" in note
    training = imagefolder(tmp_path / "train")
    assert training.classes == ("n01", "n02")
    assert sources(training) == [f"{name}/images/{name}_0.JPEG" for name in dataset.classes]


def test_photos_without_folders_are_told_where_to_go(tmp_path, error_line):
    touch(tmp_path / "tree" / "a.JPG")
    touch(tmp_path / "tree" / "b.png")
    arguments = ["pack", "imagefolder", "--root", str(tmp_path / "tree"), "--out", "unused"]
    assert main(arguments) == 2
    message = "holds 2 images but no folders; move each image into a folder named after"
    assert message in error_line()


def test_photos_beside_class_folders_are_noted(tmp_path, capsys):
    root = tmp_path / "tree"
    for path in (root / "ant" / "1.jpg", root / "bee" / "1.jpg", root / "loose.jpg"):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9)).save(path)
    touch(root / "README.txt")
    assert main(["pack", "imagefolder", "--root", str(root), "--out", str(tmp_path / "p")]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("note: 1 images directly in ")
    assert "loose.jpg is the first" in line
    assert open_pack(tmp_path / "p").read_sources().to_pylist() == ["ant/1.jpg", "bee/1.jpg"]


def test_a_text_file_beside_class_folders_does_not_make_a_domain_a_class(tmp_path):
    for domain in ("day", "night"):
        touch(tmp_path / domain / "ant" / "1.jpg")
        touch(tmp_path / domain / "about.txt")
    dataset = imagefolder(tmp_path)
    assert (dataset.domains, dataset.classes) == (("day", "night"), ("ant",))


@pytest.mark.parametrize(
    "name", ["pacs", "officehome", "domainnet", "dtd", "patternnet", "cars", "sun397"]
)
def test_a_test_folder_that_is_not_part_of_a_data_set_is_noted(name, tmp_path):
    MAKERS[name](tmp_path, most=1)
    assert not SOURCES[name].make(tmp_path).notes
    touch(tmp_path / "test" / "1.jpg")
    (note,) = SOURCES[name].make(tmp_path).notes
    assert "test/ left out" in note


def test_imagenets_splits_reach_the_pack(tmp_path):
    image = tmp_path / "image.jpg"
    Image.new("RGB", (9, 9)).save(image)
    for split in ("train", "val"):
        for synset in SYNSETS:
            folder = tmp_path / "tree" / split / synset
            folder.mkdir(parents=True)
            (folder / "1.JPEG").hardlink_to(image)
    out = tmp_path / "pack"
    assert main(["pack", "imagenet", "--root", str(tmp_path / "tree"), "--out", str(out)]) == 0
    contents = open_pack(out)
    manifest, index = contents.manifest, contents.index
    assert manifest.splits == ("train", "val")
    assert [int((index.split == split).sum()) for split in (0, 1)] == [1000, 1000]
    assert manifest.classes == tuple(SYNSETS)


def test_patternnets_classes_are_its_folders(tmp_path):
    MAKERS["patternnet"](tmp_path, most=2)
    dataset = SOURCES["patternnet"].make(tmp_path)
    assert dataset.classes == tuple(sorted(PATTERNNET_CLASSES))
    assert len(sources(dataset)) == 76
    assert "wastewater_treatment_plant/wastewaterplant002.jpg" in sources(dataset)


def test_sun397_has_classes_within_places(tmp_path):
    MAKERS["sun397"](tmp_path, most=1)
    dataset = SOURCES["sun397"].make(tmp_path)
    assert dataset.classes == tuple(sorted(SUN397_CLASSES))
    assert sources(dataset)[:2] == ["a/abbey/sun_ccccccc1.jpg", "c/church/indoor/sun_ccccccc1.jpg"]
    touch(tmp_path / "SUN397" / "c" / "church" / "x.jpg")
    (note,) = SOURCES["sun397"].make(tmp_path).notes
    assert "x.jpg is the first" in note


def test_the_labels_of_cars_come_from_its_matlab_files(tmp_path):
    MAKERS["cars"](tmp_path, most=1)
    dataset = SOURCES["cars"].make(tmp_path)
    assert (dataset.classes, dataset.splits) == (CARS_CLASSES, ("train", "test"))
    assert not dataset.notes
    samples = list(dataset.samples())
    assert [sample.split for sample in samples] == [0] * 196 + [1] * 196
    for sample in samples:
        assert sample.label == int(sample.source[-9:-4]) % 196


def test_cars_without_labels_are_unlabeled_and_the_user_is_told(tmp_path):
    MAKERS["cars"](tmp_path, most=1)
    (tmp_path / "cars_test_annos_withlabels.mat").unlink()
    dataset = SOURCES["cars"].make(tmp_path)
    assert dataset.classes == (*CARS_CLASSES, "unlabeled")
    assert {sample.label for sample in dataset.samples() if sample.split} == {196}
    (note,) = dataset.notes
    assert "the test images have no labels" in note
    assert note.endswith("add cars_test_annos_withlabels.mat")
    (tmp_path / "devkit" / "cars_meta.mat").unlink()
    dataset = SOURCES["cars"].make(tmp_path)
    assert dataset.classes == ("unlabeled",)
    assert len(sources(dataset)) == 392
    assert "the train and test images have no labels" in dataset.notes[0]


def test_what_is_wrong_with_the_labels_of_cars_is_said(tmp_path):
    MAKERS["cars"](tmp_path, most=1)
    touch(tmp_path / "cars_train" / "99999.jpg")
    with pytest.raises(
        PackError, match=r"cars_train_annos\.mat: it has no label for 1 images: 9999"
    ):
        SOURCES["cars"].make(tmp_path)
    meta = tmp_path / "devkit" / "cars_meta.mat"
    published = meta.read_bytes()
    huge = published.replace(struct.pack("<ii", 1, 196), struct.pack("<ii", 2**31 - 1, 1))
    assert huge != published
    for content in (published[:300], b"", b"MATLAB 7.3", bytes(4000), huge):
        meta.write_bytes(content)
        with pytest.raises(PackError, match=r"cannot use .*cars_meta\.mat: .*; get the published"):
            SOURCES["cars"].make(tmp_path)
    (tmp_path / "cars_train" / "cars_train").mkdir()
    with pytest.raises(PackError, match="expected images and no folders, found 1: cars_train"):
        SOURCES["cars"].make(tmp_path)
