"""Semantic novelty on real images: distances and learned relations, on classes held out.

    python -m benchmarks.learning --images TAR --weights FILE [--cache FOLDER]

TAR holds `<class>/<image>` in any folder, such as 100 images of each class of Tiny-ImageNet; FILE
the weights of timm's `--backbone`. For each of `--splits` random splits of the classes, three
quarters are training classes; half of the rest are known, with 20 references each, half unknown.
All other images of the known and the unknown classes are tests. Distances between features of the
published backbone are compared with relations that are trained on the training classes: on frozen
features, from several starts, with several objectives and ways to draw pairs; and, on
`--fine-tuning-splits` of the splits, at a small image size, together with the backbone.

Writes the tables into the document `--out`, below what is written there by hand. Images are packed
and features computed once, in the cache's folder.
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.learning.experiments import fine_tuned, on_frozen_features
from benchmarks.learning.features import Source, pack_of
from benchmarks.learning.report import Report
from benchmarks.learning.splits import splits
from benchmarks.learning.training import Budget
from runtime.command import Parser, natural, positive, run_command
from runtime.distributed import process_group
from runtime.precision import exact_float32


def main(arguments: list[str] | None = None) -> int:
    return run_command(lambda: _measure(_parser().parse_args(arguments)))


def _parser() -> Parser:
    parser = Parser(
        prog="python -m benchmarks.learning",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--images", type=Path, required=True, help="tar of <class>/<image>")
    parser.add_argument("--weights", type=Path, required=True, help="the backbone's weights")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0", help="its name in timm")
    parser.add_argument("--splits", type=positive, default=5, help="random splits of the classes")
    parser.add_argument("--steps", type=positive, default=300, help="on frozen features")
    parser.add_argument("--classes", type=positive, default=24, help="training classes of a step")
    parser.add_argument("--fine-tuning-splits", type=natural, default=2, help="0 for none")
    parser.add_argument("--fine-tuning-steps", type=positive, default=100, help="of the backbone")
    parser.add_argument("--image-size", type=positive, default=128, help="in fine-tuning")
    parser.add_argument("--cache", type=Path, default=Path("runs/learning"), help="kept here")
    parser.add_argument(
        "--choosing",
        action="store_true",
        help="split the training classes of one split again, to choose settings without its tests",
    )
    parser.add_argument("--out", type=Path, default=Path("docs/learning.md"), help="the document")
    return parser


@exact_float32()
def _measure(options: argparse.Namespace) -> int:
    started = time.perf_counter()
    pack = pack_of(options.images, options.cache)
    drawn = splits(pack.index.label, options.splits, choosing=options.choosing)
    frozen = Budget(options.steps, options.classes)
    tuning = Budget(options.fine_tuning_steps, options.classes, image_size=options.image_size)
    with process_group("auto") as process:
        source = Source(options.backbone, options.weights, pack, options.cache, process)
        found = list(on_frozen_features(source, drawn, frozen))
        report = Report(source, started, (frozen, tuning), options.choosing, found)
        report.write(options.out)
        tuned = list(fine_tuned(source, drawn[: options.fine_tuning_splits], tuning))
        report = replace(report, fine_tuned=tuned)
        report.write(options.out)
    print(report.text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
