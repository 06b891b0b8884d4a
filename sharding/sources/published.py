"""The published data sets, with the names, label orders and splits that the benchmarks use."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from runtime.errors import PackError
from sharding.sources.dataset import Dataset, FileReader, Sample
from sharding.sources.tree import class_tree, domain_tree, folders, imagefolder

PACS_DOMAINS = ("art_painting", "cartoon", "photo", "sketch")
PACS_CLASSES = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
OFFICEHOME_DOMAINS = ("Art", "Clipart", "Product", "Real_World")
OFFICEHOME_NUM_CLASSES = 65
DOMAINNET_DOMAINS = ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")
DOMAINNET_SPLITS = ("train", "test")
DTD_CLASSES = tuple(
    "crystalline fibrous spiralled stratified matted porous scaly stained pleated flecked pitted "  # noqa: SIM905
    "meshed freckled waffled cracked potholed cobwebbed swirly polka-dotted striped studded "
    "grooved woven banded blotchy braided bubbly bumpy chequered crosshatched dotted frilly gauzy "
    "grid honeycombed interlaced knitted lacelike lined marbled paisley perforated smeared "
    "sprinkled veined wrinkled zigzagged".split()
)
IMAGENET_NUM_CLASSES = 1000
_SYNSET = re.compile(r"n\d{8}")


def imagenet(root: Path) -> Dataset:
    """ImageNet's training images: `Data/CLS-LOC/train/<synset>/<image>`; labels by sorted synset,
    samples in a seeded global shuffle."""
    root = _inside(root, "ILSVRC/Data/CLS-LOC/train", "Data/CLS-LOC/train", "train")
    synsets = [name for name in folders(root) if _SYNSET.fullmatch(name)]
    if len(synsets) != IMAGENET_NUM_CLASSES:
        raise _wrong_tree(
            root, f"{IMAGENET_NUM_CLASSES} synset folders like n01440764", folders(root)
        )
    return class_tree("imagenet", root, synsets, shuffled=True)


def pacs(root: Path) -> Dataset:
    """PACS: `kfold/<domain>/<class>/<image>`."""
    root = _inside(root, "PACS/kfold", "kfold")
    _expect_folders(root, PACS_DOMAINS)
    for domain in PACS_DOMAINS:
        _expect_folders(root / domain, PACS_CLASSES)
    return domain_tree("pacs", root, PACS_DOMAINS)


def officehome(root: Path) -> Dataset:
    """Office-Home: `<domain>/<class>/<image>`; its folder `Real World` may have either spelling."""
    root = _inside(root, "OfficeHome", "OfficeHomeDataset_10072016")
    found = {name.replace(" ", "_"): name for name in folders(root)}
    if missing := [domain for domain in OFFICEHOME_DOMAINS if domain not in found]:
        raise _wrong_tree(
            root, f"the folders {', '.join(OFFICEHOME_DOMAINS)}", folders(root), missing
        )
    for domain in OFFICEHOME_DOMAINS:
        classes = folders(root / found[domain])
        if len(classes) != OFFICEHOME_NUM_CLASSES:
            raise _wrong_tree(
                root / found[domain], f"{OFFICEHOME_NUM_CLASSES} class folders", classes
            )
    return domain_tree(
        "officehome", root, [found[domain] for domain in OFFICEHOME_DOMAINS], OFFICEHOME_DOMAINS
    )


def dtd(root: Path) -> Dataset:
    """The Describable Textures: `images/<class>/<image>`, labels in the benchmark's order."""
    root = _inside(root, "dtd/images", "images")
    _expect_folders(root, DTD_CLASSES)
    return class_tree("dtd", root, DTD_CLASSES)


def domainnet(root: Path) -> Dataset:
    """DomainNet: `<domain>/<class>/<image>` for any of its six domains, each with the official
    lists `<domain>_train.txt` and `<domain>_test.txt` beside it, which give labels and splits."""
    root = _inside(root, "DomainNet")
    domains = [name for name in folders(root) if name in DOMAINNET_DOMAINS]
    if not domains:
        raise _wrong_tree(root, f"folders among {', '.join(DOMAINNET_DOMAINS)}", folders(root))
    label_of: dict[str, int] = {}
    for domain in domains:
        for source, label in _listed(root, domain):
            name = source.split("/")[1]
            if label_of.setdefault(name, label) != label:
                raise PackError(f"{root}: the lists give class {name} two labels; get them again")
    classes = sorted(label_of, key=lambda name: label_of[name])
    if [label_of[name] for name in classes] != list(range(len(classes))):
        raise PackError(
            f"{root}: the lists' {len(classes)} classes do not have labels 0 .. "
            f"{len(classes) - 1}; get the official lists again"
        )
    for domain in domains:
        named = {source.split("/")[1] for source, _ in _listed(root, domain)}
        _expect_folders(root / domain, sorted(named))

    def samples() -> Iterator[Sample]:
        for number, domain in enumerate(domains):
            for split, split_name in enumerate(DOMAINNET_SPLITS):
                for source, label in sorted(_list_file(root, domain, split_name)):
                    yield Sample(source, _size(root / source), label, number, split)

    return Dataset(
        "domainnet", tuple(classes), tuple(domains), DOMAINNET_SPLITS, samples, FileReader(root)
    )


DATASETS: dict[str, Callable[[Path], Dataset]] = {
    "imagefolder": imagefolder,
    "imagenet": imagenet,
    "pacs": pacs,
    "officehome": officehome,
    "domainnet": domainnet,
    "dtd": dtd,
}


def _listed(root: Path, domain: str) -> Iterator[tuple[str, int]]:
    for split in DOMAINNET_SPLITS:
        yield from _list_file(root, domain, split)


def _list_file(root: Path, domain: str, split: str) -> Iterator[tuple[str, int]]:
    """(source, label) of each line of an official list."""
    path = root / f"{domain}_{split}.txt"
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                source, _, label = line.strip().rpartition(" ")
                if source.count("/") != 2 or not label.isdigit():
                    raise PackError(
                        f"{path}, line {number}: expected `{domain}/<class>/<image> <label>`, "
                        f"found {line.strip()!r}"
                    )
                yield source, int(label)
    except OSError as error:
        raise PackError(
            f"cannot read {path}: {error.strerror}; get DomainNet's official list"
        ) from error


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _inside(root: Path, *places: str) -> Path:
    """The first of ``places`` below ``root`` that is a folder, or ``root`` itself."""
    return next((root / place for place in places if (root / place).is_dir()), root)


def _expect_folders(root: Path, expected: Sequence[str]) -> None:
    found = folders(root)
    if missing := [name for name in expected if name not in set(found)]:
        raise _wrong_tree(root, f"the {len(expected)} folders {_some(expected)}", found, missing)


def _wrong_tree(
    root: Path, expected: str, found: Sequence[str], missing: Sequence[str] = ()
) -> PackError:
    lacks = f" (missing: {_some(missing)})" if missing else ""
    return PackError(
        f"{root}: expected {expected}, found {len(found)}: {_some(found)}{lacks}; "
        "complete the tree, or pack what there is with `pack imagefolder`"
    )


def _some(names: Sequence[str]) -> str:
    return (", ".join(names[:8]) + (", …" if len(names) > 8 else "")) or "none"
