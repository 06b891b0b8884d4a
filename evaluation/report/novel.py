"""The page of ``predict.py --report``: the most novel images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.detectors.detector import Detector
from evaluation.detectors.outputs import write
from evaluation.detectors.prediction_files import Prediction
from evaluation.report.elements import document
from evaluation.report.mistakes import data_url
from evaluation.report.text import html_text
from pipelines.image_stream import SourceImage, UnreadableImage


@dataclass(frozen=True)
class ShownImage:
    """An image and its prediction."""

    image: SourceImage
    prediction: Prediction


def write_novel_page(path: Path, detector: Detector, images: Sequence[ShownImage]) -> None:
    """Write the page of ``images``, most novel first; it needs no other file and no network.

    Raises:
        ConfigError: it cannot be written.
    """
    threshold = detector.threshold.value
    body = [
        "<h1>The most novel images</h1>",
        f"<p>{len(images)} images of the lowest normality, which is that of "
        f"{html_text(detector.rule.evaluator)} and high for known. Known are images of normality "
        f"{threshold:.6g} or more, when compared with {len(detector.classes)} classes.</p>",
        f'<div class="cards">{"".join(map(_card, images))}</div>',
    ]
    content = document("The most novel images", body).encode(errors="backslashreplace")
    write(path, content, "report", "--report")


def _card(shown: ShownImage) -> str:
    prediction = shown.prediction
    name = html_text(prediction.image)
    try:
        picture = f'<img src="{data_url(shown.image.read().content)}" alt="{name}" title="{name}">'
    except UnreadableImage:  # it was deleted since
        picture = ""
    decision = "known" if prediction.known else "novel"
    nearest = html_text(prediction.nearest[0][0]) if prediction.nearest else ""
    return (
        f'<figure class="card">{picture}<figcaption><b>{decision}</b>, nearest {nearest}<br>'
        f"normality {prediction.normality:.4g}<br>{name}</figcaption></figure>"
    )
