"""The evaluation ``sae-probes`` on a language model and coders whose vectors are known."""

from __future__ import annotations

import importlib.util
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from click.testing import CliRunner
from qsae_evaluation_sparse_probing import SaeProbesConfig
from qsae_evaluation_sparse_probing.drawing import speller
from qsae_evaluation_sparse_probing.estimates import Tally, document_weights, value_of
from qsae_evaluation_sparse_probing.examples import Examples
from qsae_evaluation_sparse_probing.measuring import SAE_PROBES, Chosen, Task, measure
from qsae_evaluation_sparse_probing.probes import WIDE_STRENGTHS, Firing, Parts, folds, refitted_scores
from qsae_evaluation_sparse_probing.sae_probes import SaeProbes
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import GridSearchCV
from torch import Tensor

from qsae_cli.main import cli
from qsae_core import CoderConfig, ComponentConfig
from qsae_core.coders import MatrixCoder
from qsae_core.contracts import (
    Batch,
    CoderShape,
    DataSource,
    Edits,
    EvaluationContext,
    LanguageModel,
    LossOutput,
    Result,
    Site,
    SparseCodes,
    TokenBatch,
)
from qsae_core.contracts import Parts as CoderParts
from qsae_core.errors import ConfigError, DataError

IN, OUT = Site(0, "mlp_in"), Site(0, "mlp_out")
WIDTH = 40
BEGIN, END = 0, 1


class Words(LanguageModel):
    """``w7 w3`` is tokens 7, 3. At ``IN`` a vector is 2 at the place of its token; at ``OUT`` all are 1."""

    name, forward_positions, predicts_next = "words", 100, True  # type: ignore[assignment]

    def read(self, batch: TokenBatch, sites: Sequence[Site]) -> dict[Site, Tensor]:
        own = 2.0 * torch.nn.functional.one_hot(batch.ids, WIDTH).float()
        return {site: own if site == IN else torch.ones_like(own) for site in sites}

    def logits(self, batch: TokenBatch, edits: Edits | None = None) -> Tensor:
        raise NotImplementedError

    def decode(self, ids: Sequence[int] | Tensor) -> str:
        return " ".join(f"w{int(i)}" for i in ids)

    def encode(self, text: str) -> list[int]:
        return [int(word.removeprefix("w")) for word in text.split()]

    begin_id = BEGIN  # type: ignore[assignment]
    special_ids = frozenset({BEGIN, END})  # type: ignore[assignment]


class Source(DataSource):
    """Vectors of given sites, of which the evaluation reads none."""

    d_in = d_out = WIDTH

    def __init__(self, model: LanguageModel, sources: tuple[Site, ...] = (IN,)) -> None:
        super().__init__(ComponentConfig())
        self.model, self.sources, self.layers_in = model, sources, max(1, len(sources))

    @property
    def source_sites(self) -> tuple[Site, ...]:
        return self.sources

    target_sites = (OUT,)  # type: ignore[assignment]

    def language_model(self) -> LanguageModel:
        return self.model

    def next_batch(self, size: int) -> Batch:
        raise NotImplementedError

    def held_out(self, n_tokens: int, batch_size: int) -> Iterator[Batch]:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        return


class Same(MatrixCoder):
    """A latent for each coordinate."""

    def __init__(self, layers: int = 1) -> None:
        parts = CoderParts(*[None] * len(CoderParts._fields))  # type: ignore[arg-type]
        shape = CoderShape(WIDTH, WIDTH, layers, 1)
        super().__init__(CoderConfig(n_latents=WIDTH * layers), shape, parts)

    def encode(self, x: Tensor) -> SparseCodes:
        return SparseCodes.from_dense(x.flatten(1))

    def decode(self, codes: SparseCodes) -> Tensor:
        raise NotImplementedError

    def atoms(self) -> Tensor:
        raise NotImplementedError

    def atom_norms(self) -> Tensor:
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def loss(self, batch: Batch) -> LossOutput:
        raise NotImplementedError


def put(folder: pathlib.Path, name: str, label: Any, n: int = 800) -> None:
    """Different prompts of two to six words, half of which end in w7; ``label`` is told the last word."""
    generator = np.random.default_rng(len(name))
    lines = ["prompt,target"]
    for number in range(n):
        length = 2 + number % 5
        words = [*generator.integers(8, WIDTH, length), 7 if number % 2 else generator.integers(8, WIDTH)]
        lines.append(f"{' '.join(f'w{word}' for word in words)} w{END},{int(label(number, words[-1]))}")
    (folder / f"{name}.csv").write_text("\n".join(lines), encoding="utf-8")


def evaluated(
    folder: pathlib.Path, coder: Same | None = None, data: DataSource | None = None, batch_size: int = 64, **o
) -> Result:
    evaluation = SaeProbes(SaeProbesConfig(data=str(folder), **{"controls": 2, "resamples": 20, **o}))
    data = data or Source(Words())
    context = EvaluationContext(coder or Same(), data, list, 100, batch_size, "cpu")
    assert evaluation.unavailable(context) is None
    return evaluation.start(context).result()


def row_of(result: Result, task: str, k: int = 1) -> dict[str, Any]:
    table = result.tables["tasks"]
    (row,) = [row for row in table.rows if row[:2] == [task, k]]
    return dict(zip(table.columns, row, strict=True))


def test_a_label_that_one_latent_codes_is_told_by_it_alone(tmp_path):
    put(tmp_path, "seven", lambda number, last: last == 7)
    result = evaluated(tmp_path)
    for k in (1, 2):
        row = row_of(result, "seven", k)
        assert (row["accuracy"], row["f1"], row["auc"], row["accuracy_se"]) == (1, 1, 1, 0)
        assert row["score"] == 1
    (best,) = [row for row in result.tables["latents"].rows if row[1] == 1]
    assert (best[2], best[4], best[5]) == (7, 1.0, 0.0)
    # f / m is 1 on every positive and 0 on every negative
    assert result.per_latent["largest_difference"][7] == pytest.approx(1)
    assert result.values["top_1_accuracy"] == result.values["dense_accuracy"] == 1
    assert result.values["token_accuracy"] == 1  # the word that counts is the last one before the end
    assert row["positive"] == "target 1"
    assert (row["train_examples"], row["test_examples"]) == (result.values["n_prompts"] - 100, 100)


def test_a_label_that_nothing_codes_stays_at_chance(tmp_path):
    mixed = np.random.default_rng(3).permutation(np.arange(3000) % 2)
    put(tmp_path, "mixed", lambda number, last: mixed[number], n=3000)
    result = evaluated(tmp_path, prompts=1824)
    deviation = 0.5 / np.sqrt(row_of(result, "mixed")["test_examples"])  # of 800: .018
    for k in (1, 2, 5):
        assert row_of(result, "mixed", k)["accuracy"] == pytest.approx(0.5, abs=3 * deviation)
        assert row_of(result, "mixed", k)["auc"] == pytest.approx(0.5, abs=4 * deviation)
    assert result.values["top_1_score"] is None
    assert row_of(result, "mixed")["accuracy_se"] == pytest.approx(deviation, rel=0.5)


def test_a_transcoder_is_asked_of_what_it_reads(tmp_path):
    """Its target site tells nothing, as the SAE of that site shows."""
    put(tmp_path, "seven", lambda number, last: last == 7)
    assert evaluated(tmp_path, k=[1]).values["top_1_accuracy"] == 1
    of_target = evaluated(tmp_path, data=Source(Words(), (OUT,)), k=[1])
    assert of_target.values["top_1_accuracy"] == of_target.values["dense_accuracy"] == 0.5


def test_a_coder_of_several_layers_reads_all_of_them(tmp_path):
    put(tmp_path, "seven", lambda number, last: last == 7)
    result = evaluated(tmp_path, Same(layers=2), Source(Words(), (OUT, IN)), k=[1])
    assert result.values["top_1_accuracy"] == 1
    (best,) = result.tables["latents"].rows
    assert best[2] == WIDTH + 7


@pytest.mark.parametrize("batch_size", [1, 1000])
def test_the_batch_size_does_not_matter(tmp_path, batch_size):
    put(tmp_path, "noisy", lambda number, last: last % 3 == 0)
    one, other = evaluated(tmp_path, k=[2]), evaluated(tmp_path, batch_size=batch_size, k=[2])
    assert one.values == other.values
    assert one.tables == other.tables


def test_too_few_prompts_are_left_out_and_counted(tmp_path):
    put(tmp_path, "few", lambda number, last: last == 7, n=100)
    put(tmp_path, "seven", lambda number, last: last == 7)
    result = evaluated(tmp_path, k=[1])
    assert (result.values["n_tasks"], result.values["n_tasks_left_out"]) == (1, 1)
    row = row_of(result, "few")
    assert (row["accuracy"], row["dense_accuracy"], row["positives"]) == (None, None, 50)
    alone = evaluated(tmp_path, tasks=["few"], k=[1])
    assert alone.values["top_1_accuracy"] is None


def test_a_prompt_is_cut_at_its_beginning_and_ends_before_special_tokens():
    spell = speller(Words(), 4)
    assert spell(f"w5 w6 w{END} w{END}") == ((BEGIN, 5, 6), False)
    assert spell("w5 w6 w7 w8") == ((BEGIN, 6, 7, 8), True)
    assert spell(f"w{END}") is None
    assert spell("") is None


def test_no_test_row_affects_the_choice():
    """Latents, scales and probes are the same whatever codes, vectors and labels the test part has."""
    generator = np.random.default_rng(0)
    codes = generator.random((500, 12)) * (generator.random((500, 12)) < 0.4)
    labels = codes[:, 4] + 0.3 * generator.random(500) > 0.3
    other, flipped = codes.copy(), labels.copy()
    other[400:] = generator.random((100, 12)) * 9
    flipped[400:] = ~flipped[400:]
    examples = Examples(np.arange(400), np.arange(0), np.arange(400, 500))
    found = []
    for some, own in ((codes, labels), (other, flipped)):
        documents = np.where(np.arange(500) < 400, -1, np.arange(500) - 400)
        chosen = Chosen(sp.csr_array(some), some.astype(np.float32), np.arange(500) % 9, documents)
        config = SaeProbesConfig(controls=1, resamples=2)
        found.append(
            measure(Task("t", examples, own), chosen, document_weights(100, 2, 0), config, SAE_PROBES)
        )
    one, two = found
    assert one.latents == two.latents
    assert (one.differences[1] == two.differences[1]).all()
    assert value_of(one.sparse[1]["accuracy"]) != value_of(two.sparse[1]["accuracy"])
    features = Parts(codes[:400], codes[:0], codes[400:])
    scores = [refitted_scores(features, Parts(own[:400], own[:0], own[400:])) for own in (labels, flipped)]
    assert (scores[0] == scores[1]).all()


def test_latents_are_chosen_by_the_formula_of_sae_probes():
    """|mean of f / m where true - mean where false|, m = sum |f| / (how often f is not 0 + 1e-6), in plain
    float64, latent by latent; signed codes, one latent that never fires."""
    generator = np.random.default_rng(1)
    codes = generator.standard_normal((60, 9)) * (generator.random((60, 9)) < 0.5) * np.arange(9) ** 2
    labels = generator.random(60) < 0.5
    wanted = []
    for column in codes.T.tolist():
        fires = sum(value != 0 for value in column)
        m = sum(map(abs, column)) / (fires + 1e-6) + 1e-6
        means = [
            sum(v / m for v, y in zip(column, labels, strict=True) if y == side) / (labels == side).sum()
            for side in (True, False)
        ]
        wanted.append(abs(means[0] - means[1]))
    order = sorted(range(9), key=lambda j: -wanted[j])[:8]
    train = sp.csr_array(codes)
    firing = Firing.of(Parts(train, train[:0], train[:0]))
    assert firing.latents[firing.strongest(labels, 8)].tolist() == order
    assert abs(firing.differences(labels)) == pytest.approx([wanted[j] for j in firing.latents], rel=1e-5)


@pytest.mark.parametrize("n", [60, 128, 700])
def test_probes_are_those_of_scikit_learns_cross_validation(n):
    generator = np.random.default_rng(n)
    x = generator.standard_normal((n + 50, 6))
    y = generator.permutation(np.arange(n + 50) % 2 == 1)
    x[:, 0] += 1.5 * y
    features, labels = Parts(x[:n], x[:0], x[n:]), Parts(y[:n], y[:0], y[n:])
    # its search takes the first of equal ones too
    search = {"C": list(WIDE_STRENGTHS)}
    peer = GridSearchCV(LogisticRegression(max_iter=2000), search, scoring="roc_auc", cv=folds(y[:n]))
    expected = peer.fit(x[:n], y[:n]).decision_function(x[n:])
    assert refitted_scores(features, labels) == pytest.approx(expected, rel=1e-6)


def test_what_probes_are_chosen_by():
    labels = np.arange(1024) % 2 == 0
    ((fitted, held_out),) = folds(labels)
    assert (len(fitted), len(held_out), held_out.min()) == (924, 100, 924)  # the last 100, 50 of each
    ((fitted, held_out),) = folds(labels[:200])
    assert (len(fitted), len(held_out)) == (160, 40)
    parts = folds(labels[:100])
    assert sorted(np.concatenate([held_out for _, held_out in parts])) == list(range(100))
    assert all(0 < labels[held_out].sum() < len(held_out) for _, held_out in parts)


def test_f1_is_that_of_both_classes():
    generator = np.random.default_rng(2)
    scores, labels = generator.standard_normal(60), generator.random(60) < 0.3
    tally = Tally.of(scores, labels, np.arange(60), 60)
    found = tally.weighted_f1(np.ones((1, 60)))[0]
    assert found == pytest.approx(f1_score(labels, scores > 0, average="weighted"))
    assert found != pytest.approx(f1_score(labels, scores > 0), abs=0.02)


def context_of(data: DataSource, coder: Same | None = None) -> EvaluationContext:
    return EvaluationContext(coder or Same(), data, list, 100, 64, "cpu")


def test_why_it_is_not_available(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_text("")
    own = SaeProbes(SaeProbesConfig(data=str(tmp_path)))
    assert own.unavailable(context_of(Source(Words()))) is None
    assert "from which sites" in str(own.unavailable(context_of(Source(Words(), ()))))
    assert "from which sites" in str(own.unavailable(context_of(Source(Words()), Same(layers=2))))

    class Mute(Words):
        special_ids = LanguageModel.special_ids  # type: ignore[assignment]

    assert "tokenizer" in str(own.unavailable(context_of(Source(Mute()))))
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "sae_probes" else found(name)
    )
    reason = SaeProbes(SaeProbesConfig()).unavailable(context_of(Source(Words())))
    assert "pip install --no-deps sae-probes zstandard" in str(reason)


def test_faults_of_the_files_come_before_anything_is_measured(tmp_path):
    (tmp_path / "a.csv").write_text("text,target\na,1\n")
    context = context_of(Source(Words()))
    with pytest.raises(DataError, match="no column prompt"):
        SaeProbes(SaeProbesConfig(data=str(tmp_path))).start(context)

    class Short(Words):
        max_positions = 64  # type: ignore[assignment]

    with pytest.raises(ConfigError, match="at most 64 positions, not 128"):
        SaeProbes(SaeProbesConfig(data=str(tmp_path))).start(context_of(Source(Short())))


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("sae_probes") is None, reason="sae-probes is not installed")
def test_on_the_built_in_language_model_and_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train = (
        "train --data lm --sae topk --n-latents 256 --k 8 --steps 20 --batch-size 256 --buffer-tokens 4096"
    )
    chosen = "{use: sae-probes, tasks: [105_click_bait], k: [1], controls: 1, resamples: 10}"
    options = ["--no-compare-float", "--name", "it", "--set", f"evaluate=[{chosen}]"]
    done = CliRunner().invoke(cli, [*train.split(), *options], prog_name="qsae")
    assert done.exit_code == 0, done.output
    (file,) = tmp_path.glob("results/it/*/*/evaluations/sae-probes/result.json")
    values = json.loads(file.read_text())["values"]
    # 778 different headlines of the smaller class: 1024 to train on, 500 of the 532 others
    assert values["n_prompts"] == 1524
    assert values["dense_accuracy"] > 0.9
    assert 0.5 < values["top_1_accuracy"] < values["dense_accuracy"]
