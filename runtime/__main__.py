"""Exchange checkpoints with the original ReSeND code.

python -m runtime import ORIGINAL --out RUN
python -m runtime export RUN --out FOLDER
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from runtime.command import Parser, positive, run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    from runtime.original import OriginalSettings, export_original, import_original

    if options.command == "export":
        export_original(options.source, options.out)
        print(f"wrote feature_extractor.pkl and cls_rel.pkl to {options.out}")
    else:
        settings = OriginalSettings(options.backbone, options.num_heads, options.image_size)
        folder = import_original(options.source, options.out, settings)
        print(f"wrote {folder}; evaluate it with --checkpoint {options.out}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m runtime",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    shared = Parser(add_help=False)
    shared.add_argument("--out", type=Path, required=True, help="folder to write to")
    importer = commands.add_parser("import", parents=[shared], help="original to ours")
    importer.add_argument("source", type=Path, help="folder of the two .pkl files, or one file")
    importer.add_argument("--backbone", default="resnet18", help="timm name (default: resnet18)")
    importer.add_argument("--num-heads", type=positive, default=12, help="default: 12")
    importer.add_argument("--image-size", type=positive, default=224, help="pixels (default: 224)")
    exporter = commands.add_parser("export", parents=[shared], help="ours to the original's")
    exporter.add_argument("source", type=Path, help="run, checkpoint folder or .safetensors file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
