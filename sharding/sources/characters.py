"""The demo data set: invented characters in four domains, drawn from a seed without any download.

A class is a character: four curved strokes of an alphabet of 24, so that different characters share
strokes. A sample is one handwritten instance of it, with its own pose and colors. A domain is a way
of rendering it.
"""

from collections.abc import Iterator
from functools import cache
from itertools import combinations
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

NUM_TRAINING_CLASSES = 1600
NUM_HELD_OUT_CLASSES = 60
NUM_CLASSES = NUM_TRAINING_CLASSES + NUM_HELD_OUT_CLASSES
DOMAINS = ("flat", "photo", "sketch", "painting")
UNSEEN_DOMAIN = "painting"
SPLITS = ("train", "reference", "test")
TRAINING_SAMPLES = 4  # per training class and domain
HELD_OUT_SAMPLES = 12  # per held-out class and domain
NUM_REFERENCES = 4  # of those; the others are tests
SIZE = 72  # pixels, height and width
_SCALE = 2  # strokes are drawn this much larger, then averaged down
_CURVE_POINTS = 24
_ALPHABET_SIZE = 24  # strokes
_STROKES_PER_CHARACTER = 4
_ALPHABET = 2**31  # its stream of random numbers; no class has this number


class DemoSample(NamedTuple):
    """One image of the demo data set."""

    domain: str
    class_number: int
    sample: int
    split: str


def class_name(number: int) -> str:
    """The name of class ``number``."""
    return f"char{number:04d}"


def class_number(name: str) -> int:
    """The number of the class called ``name``."""
    return int(name.removeprefix("char"))


def listing() -> Iterator[DemoSample]:
    """All samples, by domain, class and sample.

    Training classes are drawn in every domain except the unseen one. Held-out classes are drawn in
    all domains, some samples of each as references and the rest as tests.
    """
    for domain in DOMAINS:
        for number in range(NUM_CLASSES):
            held_out = number >= NUM_TRAINING_CLASSES
            if domain == UNSEEN_DOMAIN and not held_out:
                continue
            for sample in range(HELD_OUT_SAMPLES if held_out else TRAINING_SAMPLES):
                split = "train"
                if held_out:
                    split = "reference" if sample < NUM_REFERENCES else "test"
                yield DemoSample(domain, number, sample, split)


def draw(seed: int, domain: str, class_number: int, sample: int) -> Image.Image:
    """Draw one image, RGB of ``SIZE`` x ``SIZE`` pixels; equal arguments give equal pixels."""
    strokes = [_alphabet(seed).strokes[number] for number in strokes_of(seed, class_number)]
    rng = np.random.default_rng([seed, class_number, DOMAINS.index(domain), sample])
    return _PAINTERS[domain](_handwritten(strokes, rng), rng)


def strokes_of(seed: int, class_number: int) -> tuple[int, ...]:
    """The strokes of a class, by their places in the alphabet; no other class has the same."""
    return _alphabet(seed).characters[class_number]


class _Alphabet(NamedTuple):
    """The strokes that characters share, and those of each class.

    Attributes:
        strokes: each (_CURVE_POINTS, 2) points (x, y) in [-1, 1].
        characters: of each class, the places of its strokes.
    """

    strokes: list[np.ndarray]
    characters: list[tuple[int, ...]]


@cache
def _alphabet(seed: int) -> _Alphabet:
    rng = np.random.default_rng([seed, _ALPHABET])
    strokes = [_stroke(rng) for _ in range(_ALPHABET_SIZE)]
    every = list(combinations(range(_ALPHABET_SIZE), _STROKES_PER_CHARACTER))
    order = rng.permutation(len(every))
    return _Alphabet(strokes, [every[number] for number in order[:NUM_CLASSES]])


def _stroke(rng: np.random.Generator) -> np.ndarray:
    """A curve or a loop, (_CURVE_POINTS, 2) points (x, y) in [-1, 1]."""
    t = np.linspace(0, 1, _CURVE_POINTS)[:, None]
    start, end = rng.uniform(-0.95, 0.95, (2, 2))
    while np.hypot(*(end - start)) < 0.8:
        start, end = rng.uniform(-0.95, 0.95, (2, 2))
    bend = rng.uniform(-1.0, 1.0) * np.array([start[1] - end[1], end[0] - start[0]])
    if rng.random() < 0.2:  # a loop instead of an arc
        angle = 2 * np.pi * t + rng.uniform(0, 2 * np.pi)
        radius = rng.uniform(0.2, 0.45)
        stroke = (start + end) / 2 + radius * np.concatenate([np.cos(angle), np.sin(angle)], 1)
    else:
        middle = (start + end) / 2 + bend
        stroke = (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end
    return np.clip(stroke, -1, 1)


def _handwritten(strokes: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """One instance of a character, in pixels: strokes displaced a little, then mapped affinely."""
    angle = rng.normal(0, 0.13)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shear = np.array([[1, rng.normal(0, 0.12)], [0, 1]])
    scale = np.diag(rng.uniform(0.62, 0.85) * np.exp(rng.normal(0, 0.08, 2)))
    shift = rng.normal(0, 0.05, 2)
    t = np.linspace(-1, 1, _CURVE_POINTS)[:, None]
    written = []
    for stroke in strokes:
        moved = stroke + rng.normal(0, 0.06, 2) + t * rng.normal(0, 0.06, 2)
        moved = moved + (1 - t**2) * rng.normal(0, 0.07, 2)
        written.append((moved @ (turn @ shear @ scale).T + shift + 1) * SIZE / 2)
    return written


def _mask(strokes: list[np.ndarray], width: float) -> np.ndarray:
    """Coverage, (SIZE, SIZE) in [0, 1], by strokes that are ``width`` pixels wide."""
    image = Image.new("L", (SIZE * _SCALE, SIZE * _SCALE))
    pen = ImageDraw.Draw(image)
    size = width * _SCALE
    for stroke in strokes:
        points = [tuple(point) for point in stroke * _SCALE]
        pen.line(points, fill=255, width=max(1, round(size)), joint="curve")
        for x, y in (points[0], points[-1]):
            pen.ellipse((x - size / 2, y - size / 2, x + size / 2, y + size / 2), fill=255)
    small = image.resize((SIZE, SIZE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / 255


def _colors(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two colors (3,) in [0, 255] whose brightness differs enough to be told apart."""
    while True:
        ink, ground = rng.uniform(0, 255, (2, 3))
        if abs((ink - ground) @ (0.299, 0.587, 0.114)) > 70:
            return ink, ground


def _blend(ground: np.ndarray, ink: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return ground + (ink - ground) * mask[..., None]


def _smooth_noise(rng: np.random.Generator, cells: int, channels: int) -> np.ndarray:
    """Noise (SIZE, SIZE, channels) in about [-1, 1] that varies over SIZE / cells pixels."""
    planes = [
        Image.fromarray(rng.uniform(-1, 1, (cells, cells)).astype(np.float32)).resize(
            (SIZE, SIZE), Image.Resampling.BICUBIC
        )
        for _ in range(channels)
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def _flat(strokes: list[np.ndarray], rng: np.random.Generator) -> Image.Image:
    ink, ground = _colors(rng)
    return _image(_blend(ground, ink, _mask(strokes, rng.uniform(3.5, 6.5))))


def _photo(strokes: list[np.ndarray], rng: np.random.Generator) -> Image.Image:
    """A relief in a lit, cluttered scene: shaded body, cast shadow, blur and sensor noise."""
    ink, ground = _colors(rng)
    scene = ground + 45 * _smooth_noise(rng, 3, 3) + 18 * _smooth_noise(rng, 12, 1)
    mask = _mask(strokes, rng.uniform(4.5, 7.0))
    body = Image.fromarray((mask * 255).astype(np.uint8))
    height = np.asarray(body.filter(ImageFilter.GaussianBlur(1.6)), np.float32) / 255
    down, right = rng.integers(1, 5, 2)
    shadow = np.roll(height, (down, right), (0, 1))
    light = rng.uniform(0, 2 * np.pi)
    slope_y, slope_x = np.gradient(height)
    shade = 1 + 1.6 * (np.cos(light) * slope_x + np.sin(light) * slope_y)
    pixels = _blend(scene * (1 - 0.45 * shadow[..., None]), ink * shade[..., None], mask)
    across = np.linspace(-1, 1, SIZE)
    falloff = 1 + 0.3 * (np.cos(light) * across[None, :] + np.sin(light) * across[:, None])
    blurred = _image(pixels * falloff[..., None]).filter(
        ImageFilter.GaussianBlur(rng.uniform(0.2, 0.9))
    )
    return _image(np.asarray(blurred, np.float32) + rng.normal(0, 7, (SIZE, SIZE, 3)))


def _sketch(strokes: list[np.ndarray], rng: np.random.Generator) -> Image.Image:
    """Several light pencil passes on paper, slightly offset from one another."""
    paper = (
        rng.uniform(225, 252) + 5 * _smooth_noise(rng, 24, 1) + rng.normal(0, 4, (SIZE, SIZE, 1))
    )
    pixels = paper + np.zeros(3)
    graphite = rng.uniform(20, 90) + rng.normal(0, 6, 3)
    grain = 0.75 + 0.35 * rng.random((SIZE, SIZE))
    for _ in range(rng.integers(2, 5)):
        passed = [
            stroke + rng.normal(0, 0.7, 2) + rng.normal(0, 0.25, stroke.shape) for stroke in strokes
        ]
        mask = _mask(passed, rng.uniform(0.8, 1.6)) * grain * rng.uniform(0.6, 0.95)
        pixels = _blend(pixels, graphite, np.clip(mask, 0, 1))
    return _image(pixels)


def _painting(strokes: list[np.ndarray], rng: np.random.Generator) -> Image.Image:
    """Brush dabs of varied paint over a ground of broad strokes, on woven canvas."""
    ink, ground = _colors(rng)
    side = SIZE * _SCALE
    canvas = Image.new("RGB", (side, side), _paint(ground, 0, rng))
    brush = ImageDraw.Draw(canvas)
    flow = rng.uniform(0, np.pi)
    for x, y in rng.uniform(0, side, (90, 2)):
        angle, length = flow + rng.normal(0, 0.35), rng.uniform(14, 34)
        brush.line(_dab((x, y), angle, length), fill=_paint(ground, 8, rng), width=9)
    width = rng.uniform(4.0, 6.5) * _SCALE
    for stroke in strokes:
        direction = np.arctan2(*np.gradient(stroke, axis=0)[:, ::-1].T)
        for (x, y), angle in zip(stroke * _SCALE, direction, strict=True):
            x, y = np.array([x, y]) + rng.normal(0, 1.0, 2)
            dab = _dab((x, y), angle + rng.normal(0, 0.25), width * 1.5)
            brush.line(dab, fill=_paint(ink, 14, rng), width=max(1, round(width)))
    small = np.asarray(canvas.resize((SIZE, SIZE), Image.Resampling.BOX), np.float32)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    weave = (
        1 + 0.05 * np.where((rows + columns) % 2, 1, -1) + 0.05 * _smooth_noise(rng, 18, 1)[..., 0]
    )
    return _image(small * weave[..., None])


def _paint(color: np.ndarray, spread: float, rng: np.random.Generator) -> tuple[int, ...]:
    mixed = color + rng.normal(0, 1) * spread + rng.normal(0, spread / 2, 3)
    return tuple(int(value) for value in np.clip(mixed, 0, 255))


def _dab(center: tuple[float, float], angle: float, length: float) -> tuple[float, ...]:
    """The ends of a dab of paint: x and y of one, then of the other."""
    (x, y), dx, dy = center, np.cos(angle) * length / 2, np.sin(angle) * length / 2
    return x - dx, y - dy, x + dx, y + dy


_PAINTERS = {"flat": _flat, "photo": _photo, "sketch": _sketch, "painting": _painting}
