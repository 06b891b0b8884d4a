"""Scores as an evaluation writes them."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq


def scores(out: Path) -> dict[str, np.ndarray]:
    """The columns of `scores.parquet` by name."""
    table = pq.read_table(out / "scores.parquet")
    return {name: table.column(name).to_numpy(zero_copy_only=False) for name in table.column_names}


def assert_equal_scores(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Normalities are equal but for rounding, everything else exactly but the networks' names."""
    assert list(found) == list(expected)
    for name, values in expected.items():
        if name == "network":
            continue
        if name.endswith(".normality"):
            np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-5)
        else:
            assert found[name].tolist() == values.tolist()
