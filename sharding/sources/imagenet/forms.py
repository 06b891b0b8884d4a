"""ImageNet in each form in which people have it; labels follow the sorted synsets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from runtime.errors import PackError
from sharding.sources.dataset import Dataset
from sharding.sources.expect import some
from sharding.sources.imagenet import hub, tars, trees
from sharding.sources.imagenet.choice import Choice, read_classes
from sharding.sources.tree import entries

NUM_CLASSES = 1000


@dataclass(frozen=True)
class ImageNetOptions:
    """Options of the data sets of synsets.

    Attributes:
        classes: file with the synsets to pack, one per line; None for all.
    """

    classes: Path | None = field(
        default=None,
        metadata={
            "type": Path,
            "metavar": "FILE",
            "help": "pack only these synsets, one per line; by default all",
        },
    )


class _Form(NamedTuple):
    """A form of the data set.

    Attributes:
        layout: what it looks like, for the user.
        find: says what is there of it in the root; "" for nothing.
        dataset: makes the data set from it.
    """

    layout: str
    find: Callable[[Path], str]
    dataset: Callable[[Path, Choice], Dataset]


_TREES = (
    _Form("train/<synset>/<image>", trees.find_tree, trees.tree),
    _Form("n01440764.tar, …", tars.find_synset_tars, tars.synset_tars),
    _Form(tars.TRAIN_TARS[0], tars.find_tar, tars.tar_of_tars),
)
_HUB = (
    _Form("train_images_0.tar.gz, …", hub.find_archives, hub.archives),
    _Form("train-00000-of-00294.parquet, …", hub.find_parquet, hub.parquet),
    _Form("imagenet1k-train-0000.tar, …", hub.find_shards, hub.shards),
)


def imagenet(root: Path, options: ImageNetOptions = ImageNetOptions()) -> Dataset:
    """ImageNet (ILSVRC 2012), unpacked or not: `train/<synset>/<image>` with `val/<synset>/<image>`
    or Kaggle's `LOC_val_solution.csv`, `ILSVRC2012_img_train.tar` with `ILSVRC2012_img_val.tar` and
    the development kit, or Hugging Face's archives, Parquet files or WebDataset shards; see
    docs/forms.md. Each split is in a seeded global shuffle, but for .tar.gz and Parquet.

    Raises:
        PackError: ``root`` holds none of these forms, or one that is incomplete or damaged.
    """
    return _found(root, _choice("imagenet", NUM_CLASSES, options), (*_TREES, *_HUB))


def imagenet21k(root: Path, options: ImageNetOptions = ImageNetOptions()) -> Dataset:
    """ImageNet-21k or any other synsets: `train/<synset>/<image>` and, if there is one,
    `val/<synset>/<image>`, or `<synset>/<image>`, or a tar for each synset, `n01440764.tar`, in a
    folder or in `fall11_whole.tar`. Each split is in a seeded global shuffle.

    Raises:
        PackError: as ``imagenet``.
    """
    return _found(root, _choice("imagenet21k", None, options), _TREES)


def _choice(name: str, count: int | None, options: ImageNetOptions) -> Choice:
    return Choice(name, count, read_classes(options.classes) if options.classes else None)


def _found(root: Path, choice: Choice, forms: Sequence[_Form]) -> Dataset:
    """The data set of the first of ``forms`` that is in ``root``, which notes the others."""
    found = [(form, what) for form in forms if (what := form.find(root))]
    if not found:
        names = entries(root)
        raise PackError(
            f"{root}: expected one of {', '.join(form.layout for form in forms)}, found "
            f"{len(names)}: {some(names)}; is --root right?"
        )
    (form, what), *others = found
    dataset = form.dataset(root, choice)
    notes = tuple(
        f"{root}: {other} left out, since there are also {what}; move those to pack the others"
        for _, other in others
    )
    return replace(
        dataset,
        found=f"{what}, {' and '.join(dataset.splits)} with {len(dataset.classes):,} classes",
        notes=dataset.notes + notes,
    )
