"""The published data sets, with the names, label orders and splits that the protocols use."""

from collections.abc import Iterator
from pathlib import Path

from runtime.errors import PackError
from sharding.sources.dataset import Dataset, Sample
from sharding.sources.expect import expect_folders, inside, wrong_tree
from sharding.sources.files import FileReader, state_of
from sharding.sources.tree import class_tree, domain_tree, folders, left_out, loose_images

PACS_DOMAINS = ("art_painting", "cartoon", "photo", "sketch")
PACS_CLASSES = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
OFFICEHOME_DOMAINS = ("Art", "Clipart", "Product", "Real_World")
OFFICEHOME_NUM_CLASSES = 65
DOMAINNET_DOMAINS = ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")
DOMAINNET_SPLITS = ("train", "test")
PATTERNNET_NUM_CLASSES = 38
SUN397_NUM_CLASSES = 397
DTD_CLASSES = tuple(
    "crystalline fibrous spiralled stratified matted porous scaly stained pleated flecked pitted "  # noqa: SIM905
    "meshed freckled waffled cracked potholed cobwebbed swirly polka-dotted striped studded "
    "grooved woven banded blotchy braided bubbly bumpy chequered crosshatched dotted frilly gauzy "
    "grid honeycombed interlaced knitted lacelike lined marbled paisley perforated smeared "
    "sprinkled veined wrinkled zigzagged".split()
)


def pacs(root: Path) -> Dataset:
    """PACS: `kfold/<domain>/<class>/<image>`."""
    notes, root = left_out(root), inside(root, "PACS/kfold", "kfold")
    expect_folders(root, PACS_DOMAINS)
    for domain in PACS_DOMAINS:
        expect_folders(root / domain, PACS_CLASSES)
    return domain_tree("pacs", root, PACS_DOMAINS, notes=notes)


def officehome(root: Path) -> Dataset:
    """Office-Home: `<domain>/<class>/<image>`; `Real World` may also be spelled `Real_World`."""
    notes, root = left_out(root), inside(root, "OfficeHome", "OfficeHomeDataset_10072016")
    found = {name.replace(" ", "_"): name for name in folders(root)}
    if missing := [domain for domain in OFFICEHOME_DOMAINS if domain not in found]:
        raise wrong_tree(
            root, f"the folders {', '.join(OFFICEHOME_DOMAINS)}", folders(root), missing
        )
    for domain in OFFICEHOME_DOMAINS:
        classes = folders(root / found[domain])
        if len(classes) != OFFICEHOME_NUM_CLASSES:
            raise wrong_tree(
                root / found[domain], f"{OFFICEHOME_NUM_CLASSES} class folders", classes
            )
    return domain_tree(
        "officehome",
        root,
        [found[domain] for domain in OFFICEHOME_DOMAINS],
        OFFICEHOME_DOMAINS,
        notes=notes,
    )


def dtd(root: Path) -> Dataset:
    """Describable Textures: `images/<class>/<image>`, with labels in the benchmark's order."""
    notes, root = left_out(root), inside(root, "dtd/images", "images")
    expect_folders(root, DTD_CLASSES)
    return class_tree("dtd", root, {name: name for name in DTD_CLASSES}, notes=notes)


def patternnet(root: Path) -> Dataset:
    """PatternNet: `images/<class>/<image>`."""
    notes, root = left_out(root), inside(root, "PatternNet/images", "images")
    classes = folders(root)
    if len(classes) != PATTERNNET_NUM_CLASSES:
        raise wrong_tree(root, f"{PATTERNNET_NUM_CLASSES} class folders", classes)
    return class_tree("patternnet", root, {name: name for name in classes}, notes=notes)


def sun397(root: Path) -> Dataset:
    """SUN397: `<initial>/<class>/<image>`, where a class may be `<place>/<part>`, such as
    `church/indoor`; its folder has the images."""
    notes, root = left_out(root), inside(root, "SUN397")
    places = {}
    for initial in (name for name in folders(root) if len(name) == 1):
        for name in folders(root / initial):
            parts = folders(root / initial / name)
            notes += loose_images(root / initial / name) if parts else ()
            for class_ in [f"{name}/{part}" for part in parts] or [name]:
                places[class_] = f"{initial}/{class_}"
    if len(places) != SUN397_NUM_CLASSES:
        expected = f"the {SUN397_NUM_CLASSES} class folders `<initial>/<class>`"
        raise wrong_tree(root, expected, sorted(places.values()) or folders(root))
    ordered = {class_: places[class_] for class_ in sorted(places)}
    return class_tree("sun397", root, ordered, notes=notes)


def domainnet(root: Path) -> Dataset:
    """DomainNet: `<domain>/<class>/<image>` for any of its six domains. Labels and splits come from
    the official lists `<domain>_train.txt` and `<domain>_test.txt` next to each domain."""
    notes, root = left_out(root), inside(root, "DomainNet")
    domains = [name for name in folders(root) if name in DOMAINNET_DOMAINS]
    if not domains:
        raise wrong_tree(root, f"folders among {', '.join(DOMAINNET_DOMAINS)}", folders(root))
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
        expect_folders(root / domain, sorted(named))

    def samples() -> Iterator[Sample]:
        for number, domain in enumerate(domains):
            for split, split_name in enumerate(DOMAINNET_SPLITS):
                for source, label in sorted(_list_file(root, domain, split_name)):
                    size, modified = state_of(str(root / source))
                    yield Sample(source, size, label, number, split, modified)

    return Dataset(
        "domainnet",
        tuple(classes),
        tuple(domains),
        DOMAINNET_SPLITS,
        samples,
        FileReader(root),
        notes=notes,
    )


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
