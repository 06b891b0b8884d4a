"""The image encoder: a timm model without its classifier, and the preprocessing that it needs."""

import copy
from difflib import get_close_matches
from typing import Any, cast

import timm
import torch
from timm.data import resolve_data_config
from timm.models import PretrainedCfg, get_pretrained_cfg
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from model.config import PAPER_PREPROCESSING, Preprocessing
from model.errors import ModelError

_PAPER = ("resnet18", "resnet101")
_CONTRASTIVE = ("clip", "pe_core")  # parts of the names of models trained on images and texts
_CLASS_COUNTS = (
    1000,
    11821,
)  # of ImageNet-1k and -12k, on which some models were fine-tuned


def backbone_preprocessing(name: str) -> Preprocessing:
    """The preprocessing that timm's model ``name`` was published with.

    The paper's backbones, ``resnet18`` and ``resnet101`` with any weights, keep the paper's
    protocol instead: the whole image squashed to 224 x 224 pixels, bilinear, ImageNet's mean and
    standard deviation.

    Raises:
        ModelError: timm has no model of that name.
    """
    known = _pretrained_config(name)
    if name.split(".")[0] in _PAPER:
        return PAPER_PREPROCESSING
    data = resolve_data_config({"in_chans": 3}, pretrained_cfg=known.to_dict())
    return Preprocessing(
        image_size=data["input_size"][-1],
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        interpolation=data["interpolation"],
        crop_mode=data["crop_mode"],
        crop_pct=data["crop_pct"],
    )


def create_backbone(
    name: str = "resnet18", *, image_size: int = 224, pretrained: bool = False
) -> nn.Module:
    """A timm model that maps images (N, 3, S, S) to features (N, ``feature_dim``).

    The features are the pooled ones before the classifier. The image towers of contrastive models
    (CLIP, Perception Encoder) keep their projection, because they were trained to be compared by
    cosine after it; towers that were fine-tuned to classify, such as those with the tag
    ``laion2b_ft_in12k_in1k``, and SigLIP's, which have no projection, do not.

    Args:
        name: a model name of timm, such as ``resnet18`` or ``vit_base_patch16_clip_224.openai``.
        image_size: S, height and width of the images in pixels.
        pretrained: start from timm's published weights, which timm downloads.

    Raises:
        ModelError: timm has no model of that name, or it does not accept that image size.
    """
    known = _pretrained_config(name)
    options: dict[str, Any] = {} if _has_projection(name, known) else {"num_classes": 0}
    if known.fixed_input_size and known.input_size != (3, image_size, image_size):
        options["img_size"] = image_size
    try:
        backbone = timm.create_model(name, pretrained=pretrained, **options)
    except (TypeError, AssertionError) as error:  # timm's models differ in what they accept
        raise ModelError(
            f"{name} cannot be built for images of {image_size} pixels ({error}); "
            f"set image_size to {known.input_size[-1]}"
        ) from error
    _check_patches(backbone, image_size)
    return backbone


def num_parameters(name: str, image_size: int) -> int:
    """The parameters of ``create_backbone``, counted without memory for them; 0 where a model
    cannot be built so.

    Raises:
        ModelError: as ``create_backbone``.
    """
    try:
        with torch.device("meta"):
            backbone = create_backbone(name, image_size=image_size)
    except (NotImplementedError, RuntimeError):  # it reads values of its tensors
        return 0
    return sum(parameter.numel() for parameter in backbone.parameters())


def checkpoint_activations(backbone: nn.Module) -> None:
    """Let a backbone keep only few activations for the backward pass and recompute the others
    there, as timm divides the model; outputs and gradients stay the same.

    Modules that keep statistics of their inputs, such as BatchNorm, see each input twice.

    Raises:
        ModelError: timm cannot do so with this model.
    """
    try:
        cast(Any, backbone).set_grad_checkpointing(True)
    except (AttributeError, AssertionError) as error:  # not there, or there to refuse
        raise ModelError("the backbone does not support it; choose another") from error


def resize_input(backbone: nn.Module, image_size: int) -> None:
    """Let a backbone take images of a different size; position embeddings are interpolated.

    Raises:
        ModelError: it does not accept that size.
    """
    if hasattr(backbone, "set_input_size"):
        cast(Any, backbone).set_input_size(img_size=(image_size, image_size))
    _check_patches(backbone, image_size)
    feature_dim(backbone, image_size)


def feature_dim(backbone: nn.Module, image_size: int) -> int:
    """D, the width of a backbone's features (N, D), found without computing them.

    Raises:
        ModelError: it does not accept images of ``image_size`` pixels.
    """
    # A copy on the meta device, whose tensors have shapes and no values.
    memo: dict[int, Any] = {id(buffer): buffer.to("meta") for buffer in backbone.buffers()}
    memo |= {id(p): nn.Parameter(p.to("meta"), p.requires_grad) for p in backbone.parameters()}
    shadow = copy.deepcopy(backbone, memo).eval()
    try:
        features = shadow(torch.empty(1, 3, image_size, image_size, device="meta"))
    except Exception as error:  # the model's own code may raise anything
        raise ModelError(
            f"the backbone does not accept images of {image_size} pixels ({error}); "
            "choose another image_size"
        ) from error
    return int(features.shape[1])


def with_hidden_layers(backbone: nn.Module, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The features (N, D) of ``images`` (N, 3, S, S), and the feature maps (N, C, H, W) after the
    stem and each stage of a convolutional network or each block of a transformer.

    Raises:
        ModelError: timm does not know the hidden layers of this model.
    """
    model = cast(Any, backbone)
    if not hasattr(model, "forward_intermediates"):
        raise ModelError(f"timm gives no hidden layers of {type(model).__name__}")
    last, maps = model.forward_intermediates(images)
    return model.forward_head(last), maps


def for_inference(backbone: nn.Module) -> nn.Module:
    """A copy of a backbone in evaluation mode with each BatchNorm folded into its convolution.

    The features are equal up to float rounding, and about a fifth faster on a CPU. A backbone that
    ``torch.fx`` cannot trace is returned as it is.
    """
    try:
        return fuse(backbone.eval())
    except Exception:  # tracing runs the model's own code, which may raise anything
        return backbone


def _pretrained_config(name: str) -> PretrainedCfg:
    """timm's description of a model's published weights, empty where it has none; ModelError where
    timm has no such model, or no weights of the tag in its name."""
    if not timm.is_model(name):
        near = get_close_matches(name, timm.list_models(), n=3)
        raise ModelError(
            f"timm has no model {name!r}; choose a name of timm.list_models()"
            + (f", such as {', '.join(near)}" if near else "")
        )
    try:
        return get_pretrained_cfg(name) or PretrainedCfg()
    except RuntimeError as error:  # the part of the name after the dot
        raise ModelError(
            f"timm has no weights {name!r}; choose a name of timm.list_pretrained()"
        ) from error


def _has_projection(name: str, known: PretrainedCfg) -> bool:
    """Whether the model's head is a projection; timm stores its width as the number of classes."""
    full_name = f"{name}.{known.tag}"
    contrastive = any(part in full_name for part in _CONTRASTIVE)
    return contrastive and known.num_classes not in (0, *_CLASS_COUNTS)


def _check_patches(backbone: nn.Module, image_size: int) -> None:
    """Raise ModelError if non-overlapping patches would not cover the image."""
    convolution = getattr(getattr(backbone, "patch_embed", None), "proj", None)
    if not isinstance(convolution, nn.Conv2d) or convolution.stride != convolution.kernel_size:
        return
    side = max(convolution.kernel_size)
    if image_size % side:
        below = max(1, image_size // side) * side
        raise ModelError(
            f"image_size {image_size} is not a multiple of the backbone's patches of {side} "
            f"pixels; choose {below} or {below + side}"
        )
