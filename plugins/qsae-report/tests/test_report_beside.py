"""What stands beside the numbers of a coder, and whether it was measured alike."""

import pathlib

import pytest
from qsae_report import pictures
from qsae_report.cards import cards
from qsae_report.differences import of_evaluation, of_samples
from qsae_report.sections import sections
from qsae_report.subject import Coder, Evaluation

from qsae_core.contracts import Result

HERE = pathlib.Path("run")
ABOUT = {"measured": {"what": "text"}, "version": 1, "options": {"top": 3, "every": 5}}


def evaluation(n_tokens, **about):
    return Evaluation("reconstruction", Result(values={"fvu": 0.1, "n_tokens": n_tokens}), {**ABOUT, **about})


def compared(stored, **others):
    return Coder("theirs", HERE, {}, {"reconstruction": stored}, **others)


@pytest.fixture
def subject(make_subject):
    """Measured on 100 tokens of ``text``."""
    made = make_subject(HERE, None, held_out=["a"])
    made.coder.evaluations["reconstruction"] = evaluation(100.0)
    return made


@pytest.mark.parametrize(
    ("theirs", "held_out", "said"),
    [
        (evaluation(100.0), ["a"], None),
        (evaluation(100.0, options={"top": 3, "every": 9}), ["a"], None),
        (evaluation(8413.0), ["a"], "8,413 tokens, here 100"),
        (evaluation(100.0, measured={"what": "other"}), ["a"], "other, here text"),
        (evaluation(100.0), ["b"], "other held-out data"),
        (evaluation(100.0), None, None),
        (evaluation(100.0, options={"top": 4}, version=2), ["a"], "version 2, here 1; top 4, here 3"),
    ],
)
def test_how_another_coder_was_measured_otherwise(subject, theirs, held_out, said):
    other = compared(theirs, held_out=held_out)
    assert of_evaluation(subject, subject.coder.evaluations["reconstruction"], other, theirs) == said


def test_it_is_said_where_the_numbers_stand(make_subject):
    theirs = compared(evaluation(50.0))
    theirs.artifact.update({"bytes": 10})
    subject = make_subject(HERE, None, compared=theirs)
    subject.coder.artifact.update({"bytes": 20})
    subject.coder.evaluations["reconstruction"] = evaluation(100.0)
    (fvu, *_) = cards(subject, 8)
    assert (fvu.title, fvu.notes) == ("FVU", ["theirs: 50 tokens, here 100"])
    (section,) = sections(subject, 8)
    assert section.differences == ["theirs was measured otherwise: 50 tokens, here 100"]
    (chart,) = pictures.overview(subject, None)
    assert chart.notes == ["theirs: 50 tokens, here 100."]


def test_samples_of_other_sizes(make_samples, make_subject):
    samples = make_samples(2, ["a"])
    other = Coder("theirs", HERE, {}, {}, make_samples(2, ["a"]))
    other.samples.about["n_tokens"] = 7
    subject = make_subject(HERE, samples, compared=other)
    assert of_samples(subject, other) == "7 tokens, here 100,000"
    charts = {chart.title: chart for chart in pictures.overview(subject, None)}
    assert charts["Activations"].notes == ["theirs: 7 tokens, here 100,000."]
    assert of_samples(make_subject(HERE, None), other) is None


def test_each_coder_has_the_same_numbers_beside_it(make_subject):
    bits = {"W_enc": 4.0625, "W_dec": 1.6875}
    twin = Coder(
        "float twin",
        HERE,
        {"bytes": 8_000_000, "times_smaller": 0.99, "bits_per_weight": {"W_enc": 32.0, "W_dec": 32.0}},
        {},
        trained={"tokens": 409_600},
    )
    other = Coder(
        "theirs",
        HERE,
        {"bytes": 500_000, "times_smaller": 3.7, "bits_per_weight": {"W_enc": 8.0, "W_dec": 2.0}},
        {},
        trained={"tokens": 204_800},
    )
    subject = make_subject(HERE, None, twin=twin, compared=other, trained={"tokens": 409_600, "steps": 200})
    subject.coder.artifact.update({"bytes": 204_634, "times_smaller": 10.28, "bits_per_weight": bits})
    shown = cards(subject, 1024, {"theirs": 512, "float twin": 1024})
    found = {card.title: (card.value, card.beside) for card in shown}
    assert found == {
        "Size": (
            "205 kB",
            [
                ("smaller than float32", "10.3\N{MULTIPLICATION SIGN}"),
                ("float twin", "8 MB"),
                ("theirs", "500 kB (3.7\N{MULTIPLICATION SIGN})"),
            ],
        ),
        "Bits per weight, decoder": ("1.69", [("float twin", "32"), ("theirs", "2")]),
        "Bits per weight, encoder": ("4.06", [("float twin", "32"), ("theirs", "8")]),
        "Latents": ("1,024", [("float twin", "1,024"), ("theirs", "512")]),
        "Trained on": ("409,600", [("steps", "200"), ("float twin", "409,600"), ("theirs", "204,800")]),
    }
