"""`python -m evaluation export`: a detector as a model that needs neither this project nor DALI."""

import copy
import importlib.util
import io
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from evaluation.detectors import storage
from evaluation.detectors.commands import evaluator_errors
from evaluation.detectors.detector import Detector
from evaluation.detectors.options import ExportConfig, ExportFormat
from evaluation.detectors.outputs import check_free, write
from evaluation.report.text import plain
from model.decision import FeatureDecision, ImageDecision
from runtime.errors import ConfigError, first_line
from runtime.precision import exact_float32

METADATA = "detector.json"
OUTPUTS = ("normality", "class")
_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_MAX_ONNX = 2**31 - 2**20  # a protocol buffer holds 2 GiB
_CHECKED = (1, 5)  # images
_TOLERANCE = 1e-4  # of the normality, or of 1 if that is larger

Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class ExportedModel:
    """A detector as the content of a file.

    Attributes:
        content: of the file.
        inputs: examples of what it takes, (n, ...).
        difference: the largest difference of its normality of these from the detector's, relative
            where that is above 1.
    """

    content: bytes
    inputs: Tensor
    difference: float


@exact_float32()
def export(folder: Path, config: ExportConfig) -> int:
    """Write the detector in ``folder`` as one file that needs nothing else; returns 0.

    Raises:
        UserError: the detector cannot be read or exported, a package is missing, or the file
            exists or cannot be written.
    """
    _check(folder, config)
    with evaluator_errors():
        detector = storage.load(folder, torch.device("cpu")).with_top(config.top)
        model = exported(detector, config.format, features=config.features)
    write(config.out, model.content, "model", "--out")
    shape = ", ".join(map(str, model.inputs.shape[1:]))
    print(
        f"exported to {plain(str(config.out))} ({len(model.content) / 1e6:.1f} MB): "
        f"{'features' if config.features else 'images'} {str(model.inputs.dtype)[6:]} (N, {shape}) "
        f"-> normality (N,), class (N,); normality within {model.difference:.1g} of the detector's"
    )
    kept = config.top is not None and not detector.can_rechoose
    print(
        f"known: normality >= {detector.threshold.value:.6g}"
        f"{', as chosen without --top' if kept else ''}; {len(detector.classes)} classes"
    )
    return 0


@torch.no_grad()
def exported(detector: Detector, kind: ExportFormat, *, features: bool) -> ExportedModel:
    """``detector``, on the CPU, as a model of images, or of ``features``, whose normality was
    compared with the detector's for 1 and 5 inputs.

    Raises:
        EvaluatorError: the detector's evaluator cannot be exported.
        ConfigError: the network cannot be converted, or not exactly enough.
    """
    module, inputs = _module(detector, features), _examples(detector, features)
    with _conversion():
        program = torch.export.export(
            module, (inputs[:2],), dynamic_shapes=({0: Dim("batch", min=1)},)
        )
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # would name this machine's folders in the file
        content, run = _FORMATS[kind](program, _metadata(detector, features))
    expected = _expected(detector, module, inputs)
    found = [(run(inputs[:n]) - expected[:n]) / expected[:n].abs().clamp_min(1) for n in _CHECKED]
    difference = torch.cat(found).abs().max().item()
    if not difference <= _TOLERANCE:
        raise ConfigError(
            f"the exported model's normality differs by {difference:.1g} from the detector's, so "
            "it was not written; choose the other --format"
        )
    return ExportedModel(content, inputs, difference)


def _module(detector: Detector, features: bool) -> FeatureDecision | ImageDecision:
    """What is exported."""
    network = detector.network.network
    means = detector.references if detector.references.only_means else detector.references.means()
    rule = detector.rule
    decide = FeatureDecision(rule.evaluator, network.relation, means.features, rule.options).eval()
    if features:
        return decide
    # in the layout that exported programs keep their weights in
    backbone = copy.deepcopy(detector.network.extractor).to(memory_format=torch.contiguous_format)
    return ImageDecision(backbone, network.preprocessing, decide).eval()


def _metadata(detector: Detector, features: bool) -> str:
    """What a user of the exported model has to know, as JSON."""
    network = detector.network.network
    return json.dumps(
        {
            "classes": [known.name for known in detector.classes],
            "threshold": detector.threshold.value,
            "evaluator": detector.rule.evaluator,
            "top": detector.rule.options.top,
            "preprocessing": None if features else asdict(network.preprocessing),
            "network_sha256": detector.origin.sha256,
        },
        indent=1,
    )


def _check(folder: Path, config: ExportConfig) -> None:
    if os.path.realpath(config.out.parent) == os.path.realpath(folder):
        raise ConfigError(f"{config.out} is in the detector's folder; choose another --out")
    check_free(config.out, config.overwrite)
    if config.format == "onnx":
        missing = [name for name in _ONNX_PACKAGES if importlib.util.find_spec(name) is None]
        if missing:
            raise ConfigError(
                f"--format onnx needs the packages {', '.join(_ONNX_PACKAGES)}; run pip install "
                f"{' '.join(missing)}, or choose --format torch"
            )


def _examples(detector: Detector, features: bool) -> Tensor:
    """Random inputs, as many as are checked: features near references, or pixels."""
    random = torch.Generator().manual_seed(0)
    count = max(_CHECKED)
    if features:
        known = detector.references.features
        chosen = torch.randint(len(known), (count,), generator=random)
        return known[chosen] + known.std() * torch.randn(count, known.shape[1], generator=random)
    size = detector.network.network.preprocessing.image_size
    return torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=random)


@contextmanager
def _conversion() -> Iterator[None]:
    """Turn a failure to convert the network into a ConfigError, and keep the converters quiet."""
    logger = logging.getLogger("onnxscript")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:  # tracing runs the backbone's own code, which may raise anything
        raise ConfigError(
            f"the network cannot be exported ({first_line(error)}); export --features and run the "
            "backbone by itself"
        ) from error
    finally:
        logger.setLevel(level)


def _onnx(program: ExportedProgram, description: str) -> tuple[bytes, Run]:
    """The program as an ONNX model, and a function that runs it in onnxruntime."""
    import onnxruntime

    size = sum(value.nbytes for value in program.state_dict.values())
    if size > _MAX_ONNX:
        raise ConfigError(
            f"the network has {size / 2**30:.1f} GiB of weights, and an ONNX file holds 2; choose "
            "--format torch"
        )
    (name,) = program.graph_signature.user_inputs
    converted = torch.onnx.export(
        program,
        input_names=[str(name)],
        output_names=OUTPUTS,
        dynamic_shapes=({0: "batch"},),
        verbose=False,
    )
    assert converted is not None  # only for a file name
    converted.model.metadata_props[METADATA] = description
    content = converted.model_proto.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return content, lambda inputs: torch.from_numpy(
        session.run([OUTPUTS[0]], {name: inputs.numpy()})[0]
    )


def _torch(program: ExportedProgram, description: str) -> tuple[bytes, Run]:
    """The program as the file that ``torch.export.load`` reads, and a function that runs that."""
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={METADATA: description})
    file.seek(0)
    loaded = torch.export.load(file).module()
    return file.getvalue(), lambda inputs: loaded(inputs)[0]


_FORMATS: dict[ExportFormat, Callable[[ExportedProgram, str], tuple[bytes, Run]]] = {
    "onnx": _onnx,
    "torch": _torch,
}


def _expected(
    detector: Detector, module: FeatureDecision | ImageDecision, inputs: Tensor
) -> Tensor:
    """The detector's normality (n,) of ``inputs``."""
    if isinstance(module, ImageDecision):
        inputs = detector.network.extractor(module.normalized(inputs))
    return detector.novelty.score(inputs).normality
