"""The data sets that `pack` knows, by name; a new one is a function and an entry here."""

from collections.abc import Callable
from pathlib import Path

from sharding.sources.cars import cars
from sharding.sources.dataset import Dataset
from sharding.sources.imagenet import imagenet
from sharding.sources.published import domainnet, dtd, officehome, pacs, patternnet, sun397
from sharding.sources.tree import imagefolder

DATASETS: dict[str, Callable[[Path], Dataset]] = {
    "imagefolder": imagefolder,
    "imagenet": imagenet,
    "pacs": pacs,
    "officehome": officehome,
    "domainnet": domainnet,
    "dtd": dtd,
    "patternnet": patternnet,
    "cars": cars,
    "sun397": sun397,
}
