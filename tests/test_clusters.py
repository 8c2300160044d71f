"""Standard errors over documents, by hand and beside what drawing documents again gives."""

from __future__ import annotations

import math

import pytest
import torch

from qsae_core.measuring import COUNT, Clusters

EACH = {COUNT: 1.0}


def texts(numbers: torch.Tensor | list[int]) -> torch.Tensor:
    """Documents that are a context each."""
    numbers = torch.as_tensor(numbers)
    return torch.stack([numbers, numbers], dim=1)


def test_a_mean_by_hand() -> None:
    """Documents with sums 6 over 3 predictions and 2 over 1: the mean is 2, of both, so nothing is
    uncertain; with sums 9 and 3 over 3 each it is 2 again, and sqrt(2/1 (3^2 + 3^2)) / 6 = 1."""
    clusters = Clusters()
    clusters.add(texts([7, 7, 7, 9]), {"ce": torch.tensor([1.0, 2.0, 3.0, 2.0])})
    assert clusters.error({"ce": 1.0}, EACH) == 0
    clusters = Clusters()
    clusters.add(texts([0, 1] * 3), {"ce": torch.tensor([3.0, 1.0] * 3)})
    assert clusters.error({"ce": 1.0}, EACH) == pytest.approx(1.0)


def test_a_single_document_says_nothing() -> None:
    clusters = Clusters()
    clusters.add(texts([0] * 5), {"ce": torch.rand(5)})
    assert clusters.error({"ce": 1.0}, EACH) is None
    clusters.add(texts([1]), {"ce": torch.tensor([torch.inf])})
    assert clusters.error({"ce": 1.0}, EACH) is None
    assert Clusters().error({"ce": 1.0}, EACH) is None


def test_parts_merge() -> None:
    torch.manual_seed(0)
    documents, ce = texts(torch.randint(0, 5, (60,))), torch.rand(60)
    whole, first, second = Clusters(), Clusters(), Clusters()
    whole.add(documents, {"ce": ce})
    first.add(documents[:21], {"ce": ce[:21]})
    second.add(documents[21:], {"ce": ce[21:]})
    first.merge(second)
    assert first.error({"ce": 1.0}, EACH) == pytest.approx(whole.error({"ce": 1.0}, EACH), rel=1e-12)


def test_a_ratio_is_as_uncertain_as_documents_drawn_again_say() -> None:
    """200 documents of different lengths and difficulty; 4,000 draws, whose own error is 1%."""
    torch.manual_seed(0)
    lengths = torch.randint(1, 40, (200,))
    hard = torch.randn(200).exp()
    documents = torch.repeat_interleave(torch.arange(200), lengths)
    zero = 5 * hard[documents] + torch.rand(len(documents))
    sae = zero * (0.2 + 0.1 * torch.rand(200)[documents])
    clusters = Clusters()
    clusters.add(texts(documents), {"zero": zero, "sae": sae})
    found = clusters.error({"zero": 1.0, "sae": -1.0}, {"zero": 1.0})
    over, under = (torch.zeros(200, dtype=torch.float64) for _ in range(2))
    over.index_add_(0, documents, (zero - sae).double())
    under.index_add_(0, documents, zero.double())
    drawn = torch.randint(0, 200, (4000, 200))
    ratios = over[drawn].sum(1) / under[drawn].sum(1)
    assert found is not None
    assert found == pytest.approx(float(ratios.std()), rel=0.08)
    alone = math.sqrt(float((((zero - sae) / zero).double()).var()) / len(documents))
    assert found > 2 * alone  # as if each prediction were independent


def test_of_few_documents_contexts_count() -> None:
    """Nine documents of two contexts each, which differ: with a tenth the contexts are one."""
    clusters = Clusters()
    of_document = torch.arange(9).repeat_interleave(2)
    ce = torch.tensor([1.0, 3.0] * 9)
    clusters.add(torch.stack([of_document, torch.arange(18)], dim=1), {"ce": ce})
    assert clusters.error({"ce": 1.0}, EACH) == pytest.approx(math.sqrt(18 / 17 * 18) / 18)
    clusters.add(torch.tensor([[9, 18], [9, 19]]), {"ce": torch.tensor([1.0, 3.0])})
    assert clusters.error({"ce": 1.0}, EACH) == 0
