import pytest
import torch

from runtime.distributed import Process
from runtime.gather import Chunk, all_gather, chunk_of

ALONE = Process(0, 0, 1, torch.device("cpu"))


@pytest.mark.parametrize("total", [0, 1, 5, 12])
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_shares_cover_each_item_once_and_differ_by_one_at_most(total, world_size):
    chunks = [
        range(total)[chunk_of(total, Process(rank, rank, world_size, ALONE.device)).slice]
        for rank in range(world_size)
    ]
    assert [item for chunk in chunks for item in chunk] == list(range(total))
    assert max(map(len, chunks)) - min(map(len, chunks)) <= 1


def test_items_that_nobody_computed_are_not_reported():
    with pytest.raises(RuntimeError, match="2 of 5 samples were not computed exactly once"):
        all_gather(torch.ones(3), Chunk(slice(0, 3), 5), ALONE)


def test_alone_all_items_are_ones_own():
    values = torch.randn(4, 2)
    assert torch.equal(all_gather(values, chunk_of(4, ALONE), ALONE), values)
