"""Counter-based random numbers: each draw is a pure function of integers, over whole arrays."""

import numpy as np

# The increment and finaliser of SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom
# number generators", section 5); the finaliser is a bijection of 64-bit integers.
_INCREMENT = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_MASK = (1 << 64) - 1


def mix(values: np.ndarray) -> np.ndarray:
    """Scramble uint64 ``values`` of any shape, one to one."""
    values = (values ^ (values >> np.uint64(30))) * _FIRST
    values = (values ^ (values >> np.uint64(27))) * _SECOND
    return values ^ (values >> np.uint64(31))


def stream(seed: int, *words: np.ndarray) -> np.ndarray:
    """Hash ``seed`` and non-negative integer arrays, broadcast together, to uint64 stream keys."""
    key = mix(np.array([seed & _MASK], dtype=np.uint64) + _INCREMENT)
    for word in words:
        key = mix((key ^ np.asarray(word).astype(np.uint64)) + _INCREMENT)
    return key


def draw(key: np.ndarray, number: int | np.ndarray) -> np.ndarray:
    """Draw ``number`` (one or an array) of each stream ``key``: uint64, broadcast."""
    return mix(key + np.asarray(number, dtype=np.uint64) * _INCREMENT + _INCREMENT)


def below(bits: np.ndarray, bound: int | np.ndarray) -> np.ndarray:
    """Map uint64 ``bits`` to integers uniform in ``[0, bound)``, ``bound`` at most 2**32; int64."""
    high = bits >> np.uint64(32)
    return ((high * np.asarray(bound, dtype=np.uint64)) >> np.uint64(32)).astype(np.int64)


def uniform(bits: np.ndarray) -> np.ndarray:
    """Map uint64 ``bits`` to float64 uniform in ``[0, 1)``."""
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
