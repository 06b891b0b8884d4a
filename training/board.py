"""TensorBoard files."""

import io
import os
import re
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import custom_scalars

from training.run_files import AppendedFile, writing


class Board:
    """A TensorBoard file, written in the calling thread: the thread of TensorBoard's own writers
    would end with a traceback when the disk is full."""

    def __init__(self, folder: Path) -> None:
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        with writing(folder):
            folder.mkdir(exist_ok=True)
        self._file = AppendedFile(folder / name)
        self._records = RecordWriter(self._file)
        self._charts: dict[str, dict[str, list[str]]] = {}
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write ``values`` measured after ``step`` steps."""
        charts = _charts(values)
        if charts and charts != self._charts:
            self._charts = charts
            self._summarize(step, _layout(charts))
        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._summarize(step, Summary(value=scalars))

    def write_image(self, step: int, name: str, image: Image.Image) -> None:
        """Write a picture."""
        png = io.BytesIO()
        image.save(png, "PNG")
        picture = Summary.Image(
            width=image.width,
            height=image.height,
            colorspace=len(image.getbands()),
            encoded_image_string=png.getvalue(),
        )
        self._summarize(step, Summary(value=[Summary.Value(tag=name, image=picture)]))

    def close(self, *, failed: bool) -> None:
        """Close the file, whether or not the run has failed."""
        self._file.close()

    def _summarize(self, step: int, content: Summary) -> None:
        self._write(Event(wall_time=time.time(), step=step, summary=content))

    def _write(self, event: Event) -> None:
        self._records.write(event.SerializeToString())


def _charts(values: Mapping[str, float]) -> dict[str, dict[str, list[str]]]:
    """The lines that share a chart, by group and title, of values called GROUP/METRIC/LINE or
    GROUP/METRIC/LINE/TARGET; the latter have a chart for each target."""
    groups: dict[str, dict[str, list[str]]] = {}
    for name in values:
        group, *parts = name.split("/", 3)
        if len(parts) > 1:
            title = " on ".join((parts[0], *parts[2:]))
            groups.setdefault(group, {}).setdefault(title, []).append(f"^{re.escape(name)}$")
    return groups


def _layout(groups: Mapping[str, Mapping[str, list[str]]]) -> Summary:
    """Arranges TensorBoard's tab Custom Scalars."""
    return custom_scalars(
        {
            group: {title: ["Multiline", lines] for title, lines in charts.items()}
            for group, charts in groups.items()
        }
    )
