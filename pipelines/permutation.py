"""A keyed permutation of ``range(size)``, evaluated at any single element in constant time."""

import numpy as np

from pipelines.hashing import stream
from sharding.format.splitmix import mix

_ROUNDS = 8


def permute(
    elements: np.ndarray, size: int | np.ndarray, seed: int, epochs: np.ndarray
) -> np.ndarray:
    """Where the permutation of its epoch sends each element.

    A Feistel network over ``Z_a x Z_b`` with ``a*b`` just above ``size`` (Black and Rogaway 2002,
    "Ciphers with arbitrary finite domains", generalized Feistel with cycle walking): a value that
    falls outside ``range(size)`` goes through the network again until it falls inside.

    Args:
        elements: int64 (n,), each in ``[0, size)``.
        size: number of elements that are permuted, one for all or int64 (n,).
        seed: key of the permutation.
        epochs: int64 or uint64 (n,), the epoch of each element; every epoch has its own
            permutation.

    Returns:
        int64 (n,), each in ``[0, size)``.
    """
    sizes = np.broadcast_to(np.asarray(size, dtype=np.int64), elements.shape)
    left_size = np.maximum(1, np.ceil(np.sqrt(sizes)).astype(np.int64))  # (n,)
    a, b = left_size.astype(np.uint64), (-(-sizes // left_size)).astype(np.uint64)
    keys = stream(seed, epochs[None, :], np.arange(_ROUNDS)[:, None])  # (rounds, n)
    values = _feistel(elements.astype(np.uint64), keys, a, b)
    while (outside := np.flatnonzero(values >= sizes.astype(np.uint64))).size:
        values[outside] = _feistel(values[outside], keys[:, outside], a[outside], b[outside])
    return values.astype(np.int64)


def _feistel(values: np.ndarray, keys: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    left, right = np.divmod(values, b)
    for number, key in enumerate(keys):
        if number % 2 == 0:
            left = (left + mix(right + key) % a) % a
        else:
            right = (right + mix(left + key) % b) % b
    return left * b + right
