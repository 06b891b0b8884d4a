"""Float32 arithmetic of GPUs: TensorFloat-32 for training, exact where results are reported.

TensorFloat-32 (TF32) rounds the factors of a product to 10 bits of mantissa; its peak is 7 times
that of float32 on an H100.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def use_tensor_float32() -> None:
    """Let GPUs compute float32 matrix products and convolutions in TF32, and let cuDNN time its
    algorithms and choose the fastest for each shape."""
    _set(matmul="high", convolution=True, benchmark=True)


@contextmanager
def exact_float32() -> Iterator[None]:
    """A context manager or decorator that keeps float32 products in full float32 on GPUs.

    The settings apply to the process and are restored at the end.
    """
    cudnn = torch.backends.cudnn
    before = (torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark)
    _set(matmul="highest", convolution=False, benchmark=False)
    try:
        yield
    finally:
        _set(*before)


def _set(matmul: str, convolution: bool, benchmark: bool) -> None:
    torch.set_float32_matmul_precision(matmul)
    torch.backends.cudnn.allow_tf32 = convolution
    torch.backends.cudnn.benchmark = benchmark
