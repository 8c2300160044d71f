"""The evaluation on coders with rows of our own, and from the command line."""

from __future__ import annotations

import json
import pathlib
from typing import Any, cast

import pytest
import torch
from click.testing import CliRunner
from qsae_evaluation_similarity import SimilarityConfig
from qsae_evaluation_similarity.evaluation import Similarity
from torch import Tensor

from qsae_cli.main import cli
from qsae_core.coder_options import CoderConfig
from qsae_core.coders.coder_set import CoderSet
from qsae_core.conformance.evaluation import ReferenceCoder
from qsae_core.conformance.reference_parts import plain_parts
from qsae_core.conformance.toy_data import ToyData
from qsae_core.contracts.coder import CoderShape
from qsae_core.contracts.evaluation import EvaluationContext, Result
from qsae_core.errors import ArtifactError, ConfigError
from qsae_core.evaluation.passes import run_passes


def coder_of(rows: Tensor, encoder: Tensor | None = None) -> ReferenceCoder:
    """An SAE with these decoder rows, and as encoder the same rows or others."""
    n, width = rows.shape
    coder = ReferenceCoder(CoderConfig(n_latents=n), CoderShape(width, width), plain_parts(k=1))
    coder.load_state_dict(
        {**coder.state_dict(), "W_dec.weight": rows, "W_enc.weight": rows if encoder is None else encoder}
    )
    return cast(ReferenceCoder, coder.eval())


def found(coder: Any, twin: Any = None, batch_size: int = 32, **options: Any) -> Result:
    data = ToyData(coder.shape)
    evaluation = Similarity(SimilarityConfig(**options))
    context = EvaluationContext(coder, data, list, 96, batch_size, "cpu", twin=twin)
    assert evaluation.unavailable(context) is None
    return run_passes(context, {"it": evaluation.start(context)})["it"].result()


def test_by_hand() -> None:
    """Rows 0 and 1 have cosine .96; row 2 is zero; encoder rows agree, but row 1's is at a right angle."""
    rows = torch.tensor([[1.0, 0.0], [0.96, 0.28], [0.0, 0.0]])
    encoder = torch.tensor([[3.0, 0.0], [-0.28, 0.96], [1.0, 1.0]])
    result = found(coder_of(rows, encoder))
    assert result.values == {
        "n_latents": 3.0,
        "zero_atom_fraction": pytest.approx(1 / 3),
        "average_max_decoder_cosine_sim": pytest.approx(0.96),
        "mean_abs_cosine": pytest.approx(0.96),
        "duplicate_pairs": 1.0,
        "duplicate_latents": 1.0,
        "encoder_decoder_cosine": pytest.approx(0.5),  # (1 + 0) / 2
        "grid_values": None,
        "grid_share_used": None,
        "grid_entropy": None,
    }
    assert result.per_latent["nearest"].nan_to_num(-1).tolist() == [1.0, 0.0, -1.0]
    assert result.per_latent["encoder_decoder_cosine"].isnan().tolist() == [False, False, True]
    assert result.per_latent["zero_atom"].tolist() == [0.0, 0.0, 1.0]


def test_between_two_by_hand() -> None:
    """a = e0, e1; b = (.8, .6), e0, -e0. MMCS of a: (1 + .6) / 2; of b: (.8 + 1 + 0) / 3, since -e0 has 0
    with e1. Matched: e0 with e0, e1 with (.8, .6)."""
    a, b = torch.eye(2), torch.tensor([[0.8, 0.6], [1.0, 0.0], [-1.0, 0.0]])
    result = found(coder_of(a), coder_of(b), other="twin")
    assert result.values["mmcs"] == pytest.approx(0.8)
    assert result.values["mmcs_of_other"] == pytest.approx(0.6)
    assert result.values["pw_mcc"] == result.values["pw_mcc_abs"] == pytest.approx(0.8)
    assert (result.values["matched_above_0.7"], result.values["matched_above_0.9"]) == (0.5, 0.5)
    assert result.per_latent["matched"].tolist() == [1.0, 0.0]
    assert result.uncertainty["mmcs"] == pytest.approx((0.2**2 * 2) ** 0.5 / 2**0.5)  # of 1 and .6
    assert result.tables["other"].rows == [("twin", 2, 3, 2, "exact")]


def test_chance_is_what_random_rows_of_the_same_shape_have() -> None:
    """As many random rows twice: nothing is above chance; a copy of itself is at 1."""
    draw = torch.Generator().manual_seed(5)
    a, b = (torch.randn(300, 16, generator=draw) for _ in range(2))
    result = found(coder_of(a), coder_of(b), other="twin")
    for name, by_chance in result.chance.items():
        assert result.values[name] == pytest.approx(by_chance, abs=0.03), name
    assert result.chance["mmcs"] > 0.5
    copy = found(coder_of(a), coder_of(a[torch.randperm(300, generator=draw)]), other="twin")
    assert [copy.values[n] for n in ("mmcs", "mmcs_of_other", "pw_mcc")] == pytest.approx([1.0] * 3)


def test_no_token_counts() -> None:
    rows = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    results = [found(coder_of(rows), batch_size=size).values for size in (1, 7, 64)]
    assert results[0] == results[1] == results[2]


def test_a_set_of_coders_has_nothing_to_compare() -> None:
    one = coder_of(torch.eye(2))
    both = CoderSet({"0": one, "1": one})
    context = EvaluationContext(both, ToyData(both.shape), list, 8, 8, "cpu")
    assert "each layer's coder" in str(Similarity(SimilarityConfig()).unavailable(context))


def trained(folder: pathlib.Path, *words: str) -> pathlib.Path:
    line = ["train", "--sae", "topk", "--data", "synthetic", "--n-latents", "48", "--k", "4", "--steps", "20"]
    line += ["--batch-size", "64", "--out", str(folder), "--set", "train.eval_tokens=256", *words]
    done = CliRunner().invoke(cli, line)
    assert done.exit_code == 0, done.output
    (final,) = folder.glob("*/*/*/checkpoints/final")
    return final.parents[1]


def test_from_the_command_line(tmp_path: pathlib.Path) -> None:
    """A ternary SAE uses the three values of its grid, and is unlike another seed's."""
    run = trained(tmp_path / "a", "--quantizer", "ste", "--grid", "ternary")
    other = trained(tmp_path / "b", "--seed", "1")
    line = ["evaluate", str(run), "--eval", "similarity", "--tokens", "256"]
    line += ["--eval.similarity.other", str(other)]
    done = CliRunner().invoke(cli, line)
    assert done.exit_code == 0, done.output
    stored = json.loads((run / "evaluations" / "similarity" / "result.json").read_text())
    values = stored["values"]
    assert (values["grid_values"], values["grid_share_used"]) == (3, 1)
    assert 0 < values["grid_entropy"] <= 1.585 + 1e-9  # log2 3
    assert values["matching_exact"] == 1
    assert 0.1 < values["pw_mcc"] < 0.9
    assert "similarity" in done.output

    with pytest.raises(ConfigError, match="writes 1 layers of width 64, this one 1 of 4"):
        found(coder_of(torch.eye(4)), other=str(run))


def test_there_is_nothing_at_the_path(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ArtifactError, match="no such file or folder"):
        found(coder_of(torch.eye(4)), other=str(tmp_path / "nothing"))
