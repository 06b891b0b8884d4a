"""Counter-based random numbers: each draw is a pure function of integers, over whole arrays."""

import numpy as np

from sharding.format.splitmix import INCREMENT, mix

_MASK = (1 << 64) - 1


def stream(seed: int, *words: np.ndarray) -> np.ndarray:
    """Hash ``seed`` and non-negative integer arrays, broadcast together, to uint64 stream keys."""
    key = mix(np.array([seed & _MASK], dtype=np.uint64) + INCREMENT)
    for word in words:
        key = mix((key ^ np.asarray(word).astype(np.uint64)) + INCREMENT)
    return key


def draw(key: np.ndarray, number: int | np.ndarray) -> np.ndarray:
    """Draw ``number``, one or an array, of each stream ``key``; uint64, broadcast together."""
    return mix(key + np.asarray(number, dtype=np.uint64) * INCREMENT + INCREMENT)


def below(bits: np.ndarray, bound: int | np.ndarray) -> np.ndarray:
    """Map uint64 ``bits`` to integers uniform in ``[0, bound)``, ``bound`` at most 2**32; int64."""
    high = bits >> np.uint64(32)
    return ((high * np.asarray(bound, dtype=np.uint64)) >> np.uint64(32)).astype(np.int64)


def uniform(bits: np.ndarray) -> np.ndarray:
    """Map uint64 ``bits`` to float64 uniform in ``[0, 1)``."""
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
