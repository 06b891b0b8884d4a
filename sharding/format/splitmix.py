"""SplitMix64, which decides the order of shuffled packs and of pairs independently of any library.

Source: Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators", section 5.
"""

import numpy as np

INCREMENT = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def mix(values: np.ndarray) -> np.ndarray:
    """Hash uint64 ``values`` of any shape with the finalizer, a bijection of 64-bit integers."""
    values = (values ^ (values >> np.uint64(30))) * _FIRST
    values = (values ^ (values >> np.uint64(27))) * _SECOND
    return values ^ (values >> np.uint64(31))
