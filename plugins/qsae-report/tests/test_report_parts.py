"""What the page says of latents and evaluations, from small numbers by hand."""

import json
import pathlib

import numpy as np
import pytest
import torch
from qsae_report import latents, pictures
from qsae_report.cards import cards
from qsae_report.facts import facts, subtitle
from qsae_report.gather_evaluations import read_evaluations
from qsae_report.labels import labels
from qsae_report.neighbours import Counterparts, counterparts, neighbours
from qsae_report.sections import sections
from qsae_report.subject import Coder, Evaluation
from qsae_report.survival import survival
from qsae_report.words import UNDEFINED

from qsae_core.contracts import Result, Table
from qsae_core.errors import ArtifactError
from qsae_core.evaluation.stored import save_result

HERE = pathlib.Path("run")


def twin(**evaluations):
    stored = {name: Evaluation(name, result) for name, result in evaluations.items()}
    return Coder("float twin", HERE, {"bytes": 2_000_000}, stored)


def test_nearest_atoms_without_the_atom_itself():
    rows = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    found = neighbours(rows)
    assert found.which[:, :2].tolist() == [[1, 2], [2, 0], [1, 0]]
    assert found.cosines[:, 0] == pytest.approx([0.6, 0.8, 0.8])
    assert found.which[0].tolist() == [1, 2, -1, -1, -1, -1, -1, -1]


def test_one_atom_has_no_neighbours():
    assert (neighbours(torch.ones(1, 2)).which == -1).all()


def test_neighbours_across_blocks_are_those_of_the_whole_product():
    rows = torch.nn.functional.normalize(torch.randn(2100, 8, generator=torch.Generator().manual_seed(0)))
    cosines = rows @ rows.T
    cosines.fill_diagonal_(-2)
    found = neighbours(rows)
    assert found.cosines == pytest.approx(cosines.topk(8).values.numpy(), abs=1e-6)
    assert (found.which == np.arange(2100)[:, None]).sum() == 0


def test_counterparts_each_way():
    found = counterparts(torch.eye(2), torch.tensor([[0.0, 1.0], [0.6, 0.8], [1.0, 0.0]]), "there")
    assert found.which.tolist() == [2, 0]
    assert found.back.tolist() == [1, 1, 0]
    assert found.back_cosines == pytest.approx([1, 0.8, 1])


def test_atoms_of_other_widths_are_refused():
    with pytest.raises(ArtifactError, match="3 entries, and those of the report's coder 2"):
        counterparts(torch.eye(2), torch.eye(3), "there")


def test_labels_come_from_any_table_that_gives_them():
    table = Table(("latent", "label", "score"), [[2, "verbs", 0.9], [0, "</b>", None], [9, "no such", 1.0]])
    stored = {
        "named": Evaluation("named", Result(tables={"found": table})),
        "other": Evaluation("other", Result(tables={"rows": Table(("latent", "text"), [[1, "x"]])})),
        "damaged": Evaluation("damaged", None, damage="gone"),
    }
    unknown = (None, None, None)  # whether it is sure, chance and error
    assert labels(stored, 3) == [
        (0, "</b>", "named", None, *unknown),
        (2, "verbs", "named", 0.9, *unknown),
    ]


def test_labels_that_are_not_better_than_chance_are_unsure():
    """Chance is the mean control, .45; 1.96 errors of .1 above it is .646."""
    columns = ("latent", "label", "score", "error", "control")
    rows = [[0, "a", 0.65, 0.1, 0.4], [1, "b", 0.64, 0.1, 0.5], [2, "c", None, 0.1, None]]
    found = labels({"named": Evaluation("named", Result(tables={"labels": Table(columns, rows)}))}, 3)
    assert [label.sure for label in found] == [True, False, None]
    assert (found[1].chance, found[1].error) == (pytest.approx(0.45), 0.1)


def test_cards_have_the_twin_and_baselines_beside_them(make_subject):
    own = Result(values={"fvu": 0.25, "l0": 8.0}, baseline={"fvu": 0.1})
    subject = make_subject(
        HERE, None, {"reconstruction": own}, twin=twin(reconstruction=Result(values={"fvu": 0.2}))
    )
    found = {card.title: card for card in cards(subject, 512)}
    assert found["FVU"].value == "0.2500"
    assert found["FVU"].beside == [("float twin", "0.2000"), ("baseline", "0.1000")]
    assert found["L0"].beside == []
    assert found["Latents"].value == "512"
    assert "CE recovered" not in found


def test_a_section_shows_an_evaluation_that_nobody_knows(make_subject):
    result = Result(
        values={"zeal": 0.5, "lost": None},
        chance={"zeal": 0.25},
        uncertainty={"zeal": 0.01},
        per_latent={"zest": torch.zeros(4), "of others": torch.zeros(3)},
        tables={"rows": Table(("a",), [[1]])},
    )
    (section,) = sections(make_subject(HERE, None, {"theirs": result}), 4)
    assert section.headings == ["value", "by chance", "± std. error"]
    assert section.rows == [("zeal", ["0.5000", "0.2500", "0.01000"]), ("lost", [UNDEFINED] * 3)]
    assert (section.tables, section.n_columns) == ([("rows", 1)], 1)


def test_what_baselines_reach_stands_beside_it_and_why_values_are_missing(tmp_path, make_subject):
    """As stored: baselines of a run, and what was found of it on the way, are no evaluations of it."""
    save_result(tmp_path / "zeal", Result(values={"zeal": None}, reason="no judge"), {})
    save_result(tmp_path / "baselines" / "random" / "zeal", Result(values={"zeal": 0.125}), {})
    save_result(tmp_path / "step_00000500" / "zeal", Result(values={"zeal": 9.0}), {})
    save_result(tmp_path / "baselines" / "torn" / "zeal", Result(values={"zeal": 0.5}), {})
    (tmp_path / "baselines" / "torn" / "zeal" / "result.json").write_text("[]")
    (tmp_path / "halfway").mkdir()
    found = read_evaluations(tmp_path)
    assert sorted(found) == ["halfway", "zeal"]
    assert found["halfway"].damage is not None
    subject = make_subject(HERE, None)
    subject.coder.evaluations["zeal"] = found["zeal"]
    (section,) = sections(subject, 4)
    assert (section.headings, section.rows) == (["value", "random"], [("zeal", [UNDEFINED, "0.1250"])])
    assert section.reason == "no judge"


def test_densities_come_from_what_saw_more_tokens(make_samples, make_subject):
    stored = Result(values={"n_tokens": 50.0}, per_latent={"density": torch.tensor([0.5, 0.0, torch.nan])})
    subject = make_subject(HERE, None, {"sparsity": stored})
    densities, n_tokens = pictures._densities(subject)[""]
    assert (densities.tolist(), n_tokens) == ([0.5, 0.0, 0.0], 50)
    samples = make_samples(12, [" a", " b"])
    densities, n_tokens = pictures._densities(make_subject(HERE, samples, {"sparsity": stored}))[""]
    assert samples.n_tokens > 50
    assert (len(densities), n_tokens) == (12, samples.n_tokens)
    stored = Result(values={"n_tokens": 1e6}, per_latent=stored.per_latent)
    densities, n_tokens = pictures._densities(make_subject(HERE, samples, {"sparsity": stored}))[""]
    assert (densities.tolist(), n_tokens) == ([0.5, 0.0, 0.0], 1_000_000)


def test_columns_of_other_sizes_are_left_out(make_subject):
    result = Result(per_latent={"b": torch.ones(2), "a": torch.zeros(2), "c": torch.zeros(5)})
    names, values = latents.columns(make_subject(HERE, None, {"theirs": result}).coder, 2)
    assert names == [("theirs", "a"), ("theirs", "b")]
    assert values.tolist() == [[0, 0], [1, 1]]


def test_a_long_table_says_how_many_rows_it_has(make_subject, monkeypatch):
    monkeypatch.setattr(latents, "ROWS", 2)
    result = Result(tables={"long": Table(("a",), [[1], [2], [3]])})
    found = latents.tables(make_subject(HERE, None, {"theirs": result}).coder)
    assert found["theirs"]["long"] == {"columns": ("a",), "rows": [[1], [2]], "total": 3}


def of_quantization():
    return Result(
        values={"survived_share": 0.5, "damaged_share": 0.25, "lost_share": 0.25, "judged_latents": 4},
        per_latent={
            "r": torch.tensor([0.95, 0.3, torch.nan, 0.2, torch.nan]),
            "firings": torch.tensor([30.0, 40.0, 50.0, 3.0, 0.0]),
            "firings_quantized": torch.tensor([30.0, 10.0, 0.0, 4.0, 0.0]),
        },
    )


def test_a_baseline_of_other_tokens_is_said_to_be(make_subject):
    subject = make_subject(HERE, None)
    own, fewer = (Result(values={"n_tokens": n, "zeal": 0.5}) for n in (20139.0, 3059.0))
    subject.coder.evaluations["toy"] = Evaluation("toy", own, baselines={"random": fewer, "same": own})
    (section,) = [section for section in sections(subject, 5) if section.name == "toy"]
    assert section.differences == ["random was measured otherwise: 3,059 tokens, here 20,139"]


def test_a_section_says_how_it_was_measured(make_subject):
    subject = make_subject(HERE, None)
    result = Result(values={"auc": 0.5}, how="judged by rule")
    subject.coder.evaluations["toy"] = Evaluation("toy", result, {"version": 2})
    (section,) = [section for section in sections(subject, 5) if section.name == "toy"]
    assert section.facts == [("definition", "version 2"), ("how", "judged by rule")]


def test_latents_that_died(make_subject):
    subject = make_subject(HERE, None)
    options = {"least_firings": 20, "damaged": 0.5, "survived": 0.9}
    stored = Evaluation("quantization-error", of_quantization(), {"options": options})
    subject.coder.evaluations["quantization-error"] = stored
    found = survival(subject, {})
    # latent 3 fires too seldom to be judged, and latent 4 never did
    assert found.tables["died"]["rows"] == [
        [2, "never fires in the quantized coder", None, 50, 0],
        [1, "fires here, r below 0.5", pytest.approx(0.3), 40, 10],
    ]
    assert (
        found.facts[1] == "Of these, 1 never fire in the quantized coder, and 1 fire there and are damaged."
    )
    assert [(c.name, c.words, c.meaning) for c in found.classes] == [
        ("survived", "50.0%", "r from 0.9"),
        ("damaged", "25.0%", "r below 0.5"),
        ("lost", "25.0%", "never fires, or always with one value"),
    ]


def test_those_that_died_come_before_damaged_ones_that_fire_more(make_subject):
    per_latent = {
        "r": torch.tensor([0.1, torch.nan, torch.nan, 0.2, torch.nan]),
        "firings": torch.tensor([900.0, 30.0, 40.0, 950.0, 35.0]),
        "firings_quantized": torch.tensor([800.0, 0.0, 0.0, 9.0, 60.0]),
    }
    subject = make_subject(HERE, None, {"quantization-error": Result(per_latent=per_latent)})
    rows = survival(subject, {}).tables["died"]["rows"]
    assert [row[0] for row in rows] == [2, 1, 4, 3, 0]
    assert [row[1] for row in rows] == [
        *["never fires in the quantized coder"] * 2,
        "has one value alone",
        *["fires here, r below 0.5"] * 2,
    ]


def test_latents_without_a_counterpart(make_subject):
    compared = Coder("theirs", HERE, {}, {})
    near = Counterparts(
        np.array([1, 0], dtype=np.int32),
        np.array([0.9, 0.3], dtype=np.float32),
        np.array([1, 0, 0], dtype=np.int32),
        np.array([0.3, 0.9, 0.49], dtype=np.float32),
    )
    found = survival(make_subject(HERE, None, compared=compared), {"theirs": near})
    assert found.tables["only-here"]["rows"] == [[1, pytest.approx(0.3), 0]]
    assert [row[0] for row in found.tables["only-there"]["rows"]] == [0, 2]
    assert "1 of 2 latents have no counterpart in theirs, and 2 of its 3" in found.facts[0]


def test_nothing_to_compare_is_no_view(make_subject):
    assert not survival(make_subject(HERE, None), {})


def test_examples_of_another_coder_are_its_strongest(make_samples, make_subject):
    samples = make_samples(3, ["a", "b"], top=7)
    subject = make_subject(HERE, None, twin=Coder("float twin", HERE, {}, {}, samples))
    partners = Counterparts(*(np.zeros(3, dtype=kind) for kind in (np.int32, np.float32) * 2))
    found = {b.name: b for b in latents.blocks(subject, 3, None, {"float twin": partners})}
    sizes = {name: entries for name, _, _, entries in json.loads(found["other-0-examples"].about)}
    assert (sizes["offsets"], sizes["start"], sizes["at"]) == (
        4,
        3 * latents.OF_OTHERS,
        3 * latents.OF_OTHERS,
    )


def test_what_it_is_of_in_words(make_samples, make_subject):
    subject = make_subject(HERE, make_samples(2, ["a"]), trained={"steps": 1200})
    subject.description["source"] |= {"source_sites": ["2.mlp_in"], "target_sites": ["2.mlp_out"]}
    assert subtitle(subject) == "made-up · 2.mlp_in → 2.mlp_out · 1,200 steps"
    said = dict(facts(subject, 2))
    assert said["samples"] == "100,000 tokens of made-up text; left out: 5 special tokens"
