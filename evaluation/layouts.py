"""Where the images of OODDB's lists lie in the published trees, by the name of the pack's data set.

The lists name images by number, or SUN397's by name; zeros in front of a number do not matter
(``evaluation.listed_rows``). The paths are those of the benchmark's own code, OODDB/utils.py, below
the folder that `pack` takes as the tree's root.
"""

from evaluation.lists import Key, Layout

_PATTERNNET_SHORT = {"wastewater_treatment_plant": "wastewaterplant"}


def _domainnet(file: str, key: Key, image: int | str) -> str:
    if key.domain == "quickdraw":
        return f"quickdraw/{key.name}/{image}.png"
    return f"{key.domain}/{key.name}/{key.domain}_{key.official}_{image}.jpg"


def _dtd(file: str, key: Key, image: int | str) -> str:
    return f"{key.name}/{key.name}_{image}.jpg"


def _patternnet(file: str, key: Key, image: int | str) -> str:
    short = _PATTERNNET_SHORT.get(key.name, key.name.replace("_", ""))
    return f"{key.name}/{short}{image}.jpg"


def _cars(file: str, key: Key, image: int | str) -> str:
    split, _, _ = file.partition("_o")  # train_o0.json
    return f"cars_{split}/{image}.jpg"


def _sun397(file: str, key: Key, image: int | str) -> str:
    return f"{key.name[0]}/{key.name}/sun_{image}.jpg"


LAYOUTS: dict[str, Layout] = {
    "domainnet": Layout(int, _domainnet),
    "dtd": Layout(int, _dtd),
    "patternnet": Layout(int, _patternnet),
    "cars": Layout(int, _cars),
    "sun397": Layout(str, _sun397),
}
