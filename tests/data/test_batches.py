import torch

from imputune.data.batches import batches_in_order, joined, shuffled_batches


def test_shuffled_gives_every_stay_once_in_a_new_order():
    """An epoch is a permutation, and the next epoch another."""
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.cat(list(shuffled_batches(10, 4, generator))).tolist() for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


def test_in_order_keeps_the_order():
    """Batches of 4 over 10 stays are 4, 4 and 2, in their order."""
    assert [batch.tolist() for batch in batches_in_order(10, 4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_joined_puts_batches_together():
    """Tensors of successive batches, of any shapes and types, become tensors of all stays."""
    batches = [(stays * 2, stays[:, None].float() + torch.zeros(3)) for stays in batches_in_order(10, 4)]
    doubled, wide = joined(iter(batches), 10)
    assert doubled.tolist() == list(range(0, 20, 2))
    assert doubled.dtype == torch.int64
    assert torch.equal(wide, torch.arange(10.0)[:, None].expand(10, 3))
    assert joined((), 0) == ()
    assert list(batches_in_order(0)) == []
