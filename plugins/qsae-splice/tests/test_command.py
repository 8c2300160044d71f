"""``qsae splice`` on a small quantized SAE of the built-in language model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from qsae_samples.samples import Samples
from qsae_splice import Edit, steer
from qsae_splice.places import trained_on

from qsae_cli.main import cli
from qsae_core import load
from qsae_core.contracts import Edit as SiteEdit
from qsae_core.contracts import Site, TokenBatch
from qsae_core.errors import ConfigError

PROMPT = "def open(path):"
SMALL = ["--n-latents", "64", "--k", "8", "--steps", "20", "--batch-size", "256", "--eval-tokens", "256"]
TEXT = ["--data", "lm", "--model", "builtin", "--context", "64", "--buffer-tokens", "1024"]


def qsae(*arguments: object, fails: bool = False) -> str:
    result = CliRunner().invoke(cli, [str(a) for a in arguments])
    assert (result.exit_code != 0) == fails, result.output
    return result.stdout if {"--json", "--dump-spec"} & set(arguments) else result.output


def train(folder: Path, *arguments: str, coder: Sequence[str] = ("--sae", "topk")) -> Path:
    evaluated = ["--eval", "reconstruction", "--name", "x", "--out", str(folder)]
    qsae("train", *coder, *SMALL, *arguments, *evaluated)
    (artifact,) = folder.glob("x/*/*/checkpoints/final")
    return artifact


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    return train(folder, *TEXT, "--quantizer", "lsq", "--n-bits", "4", "--layer", "1", "--save-float")


def run(artifact: Path, *arguments: object) -> dict:
    short = ["--max-new-tokens", 6, "--measure-tokens", 512, "--json"]
    return json.loads(qsae("splice", artifact, "--prompt", PROMPT, *short, *arguments))


def test_steered_next_to_unsteered(packed) -> None:
    found = run(packed, "--steer", "3:add=1norm@generated", "--ablate", 5, "--compare")
    assert (found["model"], found["sites"]) == ("builtin", ["1.resid_post"])
    (text,) = found["texts"]
    assert text["prompt"] == PROMPT
    assert text["steered"] != text["unsteered"]
    # ablated is what is active; a whole mean norm is added to about one norm
    assert 0.5 < text["shift"]["largest"] < 3
    prompt = [step for step in text["steps"] if step["prompt"]]
    steps = [step for step in text["steps"] if not step["prompt"]]
    assert prompt[0]["activations"] == {}  # BOS
    assert "".join(step["text"] for step in prompt[1:]) == PROMPT
    assert "".join(step["text"] for step in steps) == text["steered"]
    for step in text["steps"][1:]:
        f = step["activations"]["1.resid_post"]
        assert f["5"][1] == 0
        assert (f["3"][1] > f["3"][0]) == (not step["prompt"])
    assert {step["kl"] for step in prompt} == {None}
    assert steps[0]["kl"] < max(step["kl"] for step in steps[1:])  # nothing is added before the first one


def test_what_is_printed(packed) -> None:
    out = qsae("splice", packed, "--prompt", PROMPT, "--steer", "3=9norm", "--compare", "--max-new-tokens", 4)
    for words in [
        f"prompt     {PROMPT!r}",
        "unsteered  '",
        "steered    '",
        "effective shift",
        "nats on average",
    ]:
        assert words in out
    assert "note: the effective shift is up to" in out
    nothing = qsae("splice", packed, "--prompt", PROMPT, "--steer", "3=1raw@90:", "--max-new-tokens", 4)
    assert "note: no position was edited" in nothing
    negative = qsae("splice", packed, "--prompt", PROMPT, "--steer", "3=-1raw", "--max-new-tokens", 2)
    assert "note: an activation was made negative" in negative


def test_a_dumped_spec_does_the_same(packed, tmp_path) -> None:
    edits = ["--steer", "3:add=0.7norm", "--ablate", "5@prompt", "--mode", "replace"]
    file = tmp_path / "spec.json"
    file.write_text(qsae("splice", packed, *edits, "--measure-tokens", 512, "--dump-spec"))
    spec = json.loads(file.read_text())
    assert spec["scales"][""]["norm"][0] > 0
    assert spec["scales"][""]["n_tokens"] == 512
    given = run(packed, *edits)
    again = run(packed, "--spec", file, "--measure-tokens", 64)  # the scales are those of the file
    assert again == given
    spec["scales"][""]["norm"][0] *= 5
    file.write_text(json.dumps(spec))
    assert run(packed, "--spec", file)["texts"][0]["shift"] != given["texts"][0]["shift"]


def test_latents_by_their_output_score(packed) -> None:
    arguments = ["--rank", "output", "--measure-tokens", 512]
    found = json.loads(qsae("splice", packed, "--prompt", PROMPT, *arguments, "--json"))["latents"]
    assert [r["score"] for r in found] == sorted((r["score"] for r in found), reverse=True)
    assert 0 < len(found) < 64
    everyone = json.loads(qsae("splice", packed, "--prompt", PROMPT, *arguments, "--rank-all", "--json"))
    assert len(everyone["latents"]) == 64
    table = qsae("splice", packed, "--prompt", PROMPT, *arguments, "--rank-show", 2)
    assert len(table.splitlines()) == 5  # that it is loading, title, headings, two latents


def test_packed_atoms_move_by_their_quantization_error(packed, builtin) -> None:
    coder = load(packed)
    floats = load(packed)
    exact = coder.dictionary(quantized=False)
    floats.atoms_of = lambda latents: exact[latents]  # the same codes, atoms as they were before quantization
    ids = torch.tensor([[0, 317, 1151, 8]])
    batch = TokenBatch(ids, ids != 0, torch.ones_like(ids, dtype=torch.bool))
    seen = []
    for each in (coder, floats):
        with steer(builtin, each, "1.resid_post", [Edit(3, "add", 40, "raw")]):
            builtin.logits(batch, {Site(1, "resid_post"): SiteEdit(lambda h, _: seen.append(h) or h)})
    error = coder.atoms()[3] - exact[3]
    assert 0.01 < error.norm() / exact[3].norm() < 0.5
    torch.testing.assert_close((seen[0] - seen[1])[0, 1:], (40 * error).expand(3, -1), rtol=1e-3, atol=1e-3)


def test_transformers_generate_as_the_language_model(packed, builtin) -> None:
    coder, ids = load(packed), torch.tensor([[0, 317, 1151, 8]])
    edits = [Edit(3, "add", 40, "raw", "generated"), Edit(4, "set", 10, "raw", "token:/ /")]
    with steer(builtin, coder, "1.resid_post", edits):
        one = builtin.generate(ids, 8)
    with steer(builtin.model, coder, "model.layers.1", edits):
        mask = torch.ones_like(ids)
        other = builtin.model.generate(ids, attention_mask=mask, max_new_tokens=8, do_sample=False)
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ablate", "64"], "there is no latent 64: the coder has 64"),
        (["--steer", "3=1foo"], "unknown unit 'foo'"),
        (["--steer", "3=1raw@soon"], "there are no positions 'soon'"),
        (["--positions", "soon"], "there are no positions 'soon'"),
        (["--steer", "2/3=1raw"], "there is no coder of layer 2"),
        (["--ablate", "3", "--model", "/gone"], "there is no directory /gone"),
        (["--ablate", "3", "--tokenizer", "/gone"], "the tokenizer of builtin is not known"),
        ([], "nothing is to be done"),
    ],
)
def test_bad_input(packed, arguments, message) -> None:
    out = qsae("splice", packed, "--prompt", PROMPT, *arguments, fails=True)
    assert message in out
    assert "Traceback" not in out


def test_a_latent_that_there_is_not_is_refused_before_the_model_is_loaded(packed) -> None:
    gone = ["--model", "/gone", "--prompt", PROMPT]
    assert "there is no latent 64" in qsae("splice", packed, "--ablate", "64", *gone, fails=True)
    assert "there is no directory /gone" in qsae("splice", packed, "--ablate", "63", *gone, fails=True)


def test_no_prompt_and_an_empty_one(packed) -> None:
    assert "no text to go on with" in qsae("splice", packed, "--ablate", 3, fails=True)
    assert "the prompt has no tokens" in qsae("splice", packed, "--ablate", 3, "--prompt", "", fails=True)


def test_a_coder_without_a_language_model(tmp_path) -> None:
    artifact = train(tmp_path, "--data", "synthetic", "--preset", "tiny")
    out = qsae("splice", artifact, "--prompt", PROMPT, "--ablate", 3, fails=True)
    assert "no language model behind the data 'synthetic'" in out
    assert "--model NAME" in out


def test_a_coder_for_each_of_several_layers(tmp_path) -> None:
    folder = train(tmp_path, *TEXT, "--per-layer", "--layers", "1,2")
    found = run(folder, "--steer", "1/3:add=1norm", "--ablate", "2/5", "--compare")
    assert found["sites"] == ["1.resid_post", "2.resid_post"]
    f = found["texts"][0]["steps"][2]["activations"]
    assert (list(f["1.resid_post"]), list(f["2.resid_post"])) == (["3"], ["5"])
    assert "of which layer is not said" in qsae(
        "splice", folder, "--prompt", PROMPT, "--ablate", 3, fails=True
    )
    only = run(folder, "--ablate", "2/5", "--compare")["texts"][0]["steps"][2]["activations"]
    assert list(only) == ["2.resid_post"]


def test_an_atom_of_the_float_coder_beside_the_quantized_one(packed, tmp_path) -> None:
    twin = packed.parents[1] / "checkpoints" / "float_twin"
    assert twin.is_dir()
    found = run(packed, "--direction", f"a={twin}:3", "--steer", "a:add=0.5norm@2:", "--compare")
    (text,) = found["texts"]
    # the mean norm is that of held-out vectors
    assert 0.2 < text["shift"]["mean"] < 1
    assert list(text["steps"][3]["activations"]["1.resid_post"]) == ["a"]
    atom = load(twin).atoms()[3]
    assert found["spec"]["directions"]["a"] == pytest.approx(atom.tolist())
    out = run(packed, "--direction", f"a={twin}:3", "--steer", "a:project-out", "--compare")["texts"][0]
    before, after = out["steps"][3]["activations"]["1.resid_post"]["a"]
    assert abs(after) < 1e-4 < abs(before)
    file = tmp_path / "spec.json"
    file.write_text(json.dumps(found["spec"]))
    assert run(packed, "--spec", file, "--compare") == found
    both = ["--spec", file, "--direction", f"a={twin}:4"]
    assert "two directions a" in qsae("splice", packed, "--prompt", PROMPT, *both, fails=True)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("a={twin}:64", "there is no latent 64"),
        ("a={twin}", "of which latent is not said"),
        ("a={twin}:1/3", "none of layer 1"),
        ("a=gone.npy", "there is nothing at gone.npy"),
        ("3={twin}:3", "names no direction"),
        ("b={twin}:3", "there is no direction a"),
    ],
)
def test_directions_that_there_are_not(packed, named, message) -> None:
    twin = packed.parents[1] / "checkpoints" / "float_twin"
    arguments = ["--direction", named.format(twin=twin), "--steer", "a:project-out"]
    assert message in qsae("splice", packed, "--prompt", PROMPT, *arguments, fails=True)


@pytest.fixture(scope="module")
def transcoder(tmp_path_factory) -> Path:
    places = [
        "--source-layer",
        "2",
        "--source-site",
        "mlp_in",
        "--target-layer",
        "2",
        "--target-site",
        "mlp_out",
    ]
    folder = tmp_path_factory.mktemp("transcoder")
    return train(folder, *TEXT, *places, "--skip", coder=["--transcoder", "transcoder"])


def test_two_coders_at_two_sites(packed, transcoder) -> None:
    edits = ["--steer", "1.resid_post/3:add=1norm", "--steer", "2/7:add=1norm@2:"]
    found = run(packed, "--also", transcoder, *edits, "--compare")
    assert found["sites"] == ["1.resid_post", "2.mlp_out"]
    assert found["also"] == [str(transcoder)]
    f = found["texts"][0]["steps"][3]["activations"]
    assert (list(f["1.resid_post"]), list(f["2.mlp_out"])) == (["3"], ["7"])
    alone = run(transcoder, "--steer", "7:add=1norm@2:", "--compare")
    scales = found["spec"]["scales"]
    # the same vectors of the same text, whichever coder the data was chosen for
    assert scales["2.mlp_out"]["norm"] == pytest.approx(alone["spec"]["scales"][""]["norm"], rel=1e-5)
    assert scales["2.mlp_out"]["n_tokens"] == 512
    for arguments, message in [
        (["--also", transcoder, "--ablate", "3"], "of which layer is not said"),
        (["--also", transcoder, "--ablate", "0/3"], "is no coder of layer 0"),
        (["--also", packed, "--ablate", "1/3"], "both write to 1.resid_post"),
        (["--also", "/gone", "--ablate", "1/3"], "there is no such file or folder"),
        (["--also", transcoder, "--rank", "output"], "2 coders, 2 sites"),
    ]:
        assert message in qsae("splice", packed, "--prompt", PROMPT, *arguments, fails=True)


def test_a_coder_of_another_model(packed, tmp_path) -> None:
    artifact = train(tmp_path, "--data", "synthetic", "--preset", "tiny")
    out = qsae("splice", packed, "--also", artifact, "--prompt", PROMPT, "--ablate", "1/3", fails=True)
    assert "it was trained on vectors of" in out


def test_a_coder_whose_model_is_not_recorded(packed, tmp_path) -> None:
    """As of a checkpoint of a library that does not name it."""
    nameless = shutil.copytree(packed, tmp_path / "nameless")
    description = json.loads((nameless / "coder.json").read_text())
    del description["source"]["model"]
    (nameless / "coder.json").write_text(json.dumps(description))
    with pytest.raises(ConfigError, match="on which model's vectors it was trained is not recorded"):
        trained_on(nameless)


def test_a_transcoder_with_a_skip_connection(transcoder, builtin) -> None:
    coder, source, target = load(transcoder), Site(2, "mlp_in"), Site(2, "mlp_out")
    assert coder.has_skip
    ids = torch.tensor([[0, 317, 1151, 8]])
    batch = TokenBatch(ids, ids != 0, torch.ones_like(ids, dtype=torch.bool))
    seen = builtin.read(batch, [source, target])
    x, y = seen[source][0, 1:], seen[target][0, 1:]
    codes = coder.encode(x)
    j = int(codes.indices[codes.active][0])
    f_T = codes.to_dense()[:, j]
    for mode, base in [("delta", y), ("replace", coder(x))]:
        kept = []
        with steer(builtin, coder, target, [Edit(j, "ablate")], source=source, mode=mode):
            builtin.logits(batch, {target: SiteEdit(lambda h, _, kept=kept: kept.append(h) or h)})
        torch.testing.assert_close(
            kept[0][0, 1:], base - f_T[:, None] * coder.atoms()[j], rtol=1e-4, atol=1e-4
        )


def test_what_max_is_measured_on(packed, tmp_path) -> None:
    folder = packed.parents[1]
    measured = qsae("splice", folder, "--prompt", PROMPT, "--steer", "3=1max", "--max-new-tokens", 1)
    assert "unit max: the largest activation in 16,384 held-out tokens" in measured
    qsae("samples", folder, "--tokens", 2000)
    try:
        shown = qsae("splice", folder, "--prompt", PROMPT, "--steer", "3=1max", "--max-new-tokens", 1)
        file = folder / "samples" / "samples.safetensors"
        n = Samples.load(file).n_tokens
        assert f"unit max: the largest activation in {n:,} tokens of {file}" in shown
        # the path of the artifact itself means the same coder
        found = run(packed, "--steer", "3=2max@2:", "--steer", "4:add=1norm", "--compare")
        largest = float(Samples.load(file).arrays["largest"][3])
        after = found["texts"][0]["steps"][3]["activations"]["1.resid_post"]["3"][1]
        assert after == pytest.approx(2 * largest, rel=1e-6)
        scales = found["spec"]["scales"][""]
        assert (scales["n_tokens"], str(file) in scales["largest_from"]) == (512, True)
        twin = folder / "checkpoints" / "float_twin"  # samples are of the coder, not of its twin
        assert str(file) not in json.dumps(run(twin, "--steer", "3=1max"))
        other = Samples.load(file)
        Samples(
            {**other.arrays, "largest": other.arrays["largest"][:5], "count": other.arrays["count"][:5]},
            other.about,
        ).save(file)
        assert "samples of 5 latents" in qsae(
            "splice", folder, "--prompt", PROMPT, "--steer", "3=1max", fails=True
        )
    finally:
        shutil.rmtree(folder / "samples")


@pytest.mark.parametrize(
    ("coder", "places", "sites"),
    [
        (
            ["--transcoder", "cross-layer-transcoder"],
            ["--layers", "1-2", "--source-site", "mlp_in", "--target-site", "mlp_out"],
            ["1.mlp_out", "2.mlp_out"],
        ),
        (["--sae", "crosscoder"], ["--layers", "1,3"], ["1.resid_post", "3.resid_post"]),
    ],
)
def test_coders_that_write_at_several_layers(tmp_path, coder, places, sites) -> None:
    artifact = train(tmp_path, *TEXT, *places, coder=coder)
    found = run(artifact, "--steer", "3:add=1norm@2:", "--compare")
    assert found["sites"] == sites
    assert len(found["spec"]["scales"][""]["norm"]) == 2
    step = found["texts"][0]["steps"][3]
    assert list(step["activations"][sites[0]]) == ["3"]
    # 1 norm moves the vectors by about their norm at one of the sites, and by less at the other
    moved = step["shift"]
    assert set(moved) == set(sites)
    assert 0.2 < max(moved.values()) < 5
    nothing = run(artifact, "--steer", "3:scale=1")["texts"][0]
    assert nothing["shift"]["largest"] == 0
    refused = qsae("splice", artifact, "--prompt", PROMPT, "--rank", "output", fails=True)
    assert "1 coders, 2 sites that they write to" in refused


def test_a_coder_that_chooses_its_layer(tmp_path) -> None:
    artifact = train(tmp_path, *TEXT, "--layers", "1,2", coder=["--sae", "route"])
    out = qsae("splice", artifact, "--prompt", PROMPT, "--ablate", 3, fails=True)
    assert "another one for each token" in out
