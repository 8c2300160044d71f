"""What a batch keeps of its vectors, however it is cut, joined or moved."""

from __future__ import annotations

import torch

from qsae_core.contracts import Batch, TokenBatch

BEHIND = ("token_ids", "documents", "positions")


def batch(first: int, *, targets: bool) -> Batch:
    """Three vectors of two layers that are their own number; token 10 n, document 20 n, position 30 n."""
    numbers = torch.arange(first, first + 3)
    x = numbers[:, None, None].expand(3, 2, 4).float()
    return Batch(x, x + 0.5 if targets else x, 10 * numbers, 20 * numbers, 30 * numbers)


def expect(found: Batch, numbers: list[int], *, targets: bool) -> None:
    assert found.x.flatten(1)[:, 0].tolist() == numbers
    assert (found.y is found.x) != targets
    assert found.y.flatten(1)[:, 0].tolist() == [n + 0.5 * targets for n in numbers]
    for name, times in zip(BEHIND, (10, 20, 30), strict=True):
        assert getattr(found, name).tolist() == [times * n for n in numbers]


def test_tokens_documents_and_positions_stay_with_their_vectors():
    for targets in (False, True):
        one, other = batch(0, targets=targets), batch(3, targets=targets)
        expect(one.rows(slice(1, None)), [1, 2], targets=targets)
        expect(one.rows(torch.tensor([2, 0])), [2, 0], targets=targets)
        expect(one.layer(1), [0, 1, 2], targets=targets)
        assert one.layer(1).x.shape == (3, 4)
        expect(one.to("cpu"), [0, 1, 2], targets=targets)
        expect(Batch.joined([one, other]), [0, 1, 2, 3, 4, 5], targets=targets)
        assert Batch.joined([one]) is one


def test_what_is_not_known_stays_so():
    x = torch.zeros(3, 4)
    for known in (Batch(x, x), Batch(x, x, token_ids=torch.arange(3))):
        for made in (known.rows(slice(1)), known.to("cpu"), Batch.joined([known, known])):
            assert (made.token_ids is None) == (known.token_ids is None)
            assert (made.documents, made.positions) == (None, None)


def test_what_stands_behind_the_counted_positions():
    counted = torch.tensor([[False, True, True], [False, False, True]])
    ids = torch.tensor([[0, 5, 6], [0, 0, 7]])
    documents = torch.tensor([[-1, 3, 3], [-1, -1, 4]])
    tokens = TokenBatch(ids, counted, torch.ones_like(counted), documents)
    found = {name: tensor.tolist() for name, tensor in tokens.behind_vectors().items()}
    assert found == {"token_ids": [5, 6, 7], "documents": [3, 3, 4], "positions": [1, 2, 2]}
    assert TokenBatch(ids, counted, counted).behind_vectors()["documents"] is None
