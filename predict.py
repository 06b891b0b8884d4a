"""Say of each image whether it is of a known class, with a detector that was fitted before.

python -m evaluation fit --checkpoint RUN --references packs/demo --out DETECTOR
python predict.py DETECTOR photos --out predictions.csv
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from evaluation.detectors.options import PredictConfig
from runtime.command import Parser, run_command
from runtime.options import add_options, from_options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status; 1 where an image could not be read."""
    return run_command(lambda: _predict(sys.argv[1:] if arguments is None else arguments))


def _predict(arguments: Sequence[str]) -> int:
    parser = Parser(
        prog="predict.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("detector", type=Path, help="folder of a detector")
    parser.add_argument(
        "images", type=Path, nargs="+", help="images, folders of images, or one pack"
    )
    add_options(parser.add_argument_group("options"), PredictConfig)
    options = parser.parse_args(arguments)
    # Importing torch takes seconds; help and argument errors do not wait for it.
    from evaluation.detectors.prediction import predict

    return predict(options.detector, options.images, from_options(PredictConfig, options))


if __name__ == "__main__":
    sys.exit(main())
