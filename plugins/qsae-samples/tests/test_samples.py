"""Samples of made-up codes: by hand, against all firings listed, in any batches, and on disk."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from qsae_samples import files
from qsae_samples.samples import Samples
from safetensors.numpy import save_file

from qsae_core.errors import ArtifactError, ConfigError


def samples_of(made, **options) -> Samples:
    found = made.result(**options).samples
    assert found is not None
    return found


def test_one_latent_by_hand(make_text):
    # two contexts ^bcdefgh and ^jklmnop, of documents bcde|fgh and jklm|nop
    latents = torch.zeros(2, 8, 2)
    latents[0, [1, 3, 4], 0] = torch.tensor([9.0, 2.0, 4.0])  # b, d, e; b is skipped
    latents[1, 6, 0] = -3.0
    samples = samples_of(make_text(latents), skip_first=2, before=2, after=2, per_group=1, groups=1)
    assert samples.about["n_tokens"] == 12
    assert samples.about["n_special"] == 2
    assert samples.about["n_skipped"] == 2
    assert (samples.about["n_contexts"], samples.about["context_length"]) == (2, 8)
    latent = samples.latent(0)
    assert (latent.firings, latent.density, latent.largest) == (3, 3 / 12, 4.0)
    assert latent.mean == pytest.approx(3.0)  # (2 + 4 + 3) / 3
    # one of a document: of d and e the stronger
    assert [(e.text, e.value, e.peak) for e in latent.top] == [
        ("cde", pytest.approx(4.0), 2),  # nothing of the next document
        ("nop", pytest.approx(-3.0, abs=1e-4), 1),  # signs are kept
    ]
    assert latent.top[0].activations.tolist() == pytest.approx([0, 2, 4], abs=1e-4)
    assert [(e.context, e.position, e.document) for e in latent.top] == [(0, 4, 0), (1, 6, 3)]
    # of the only part by rank what is not among the strongest: d
    assert [(e.text, e.value) for e in latent.part(1)] == [("bcde", pytest.approx(2.0, abs=1e-4))]
    silent = samples.latent(1)
    assert (silent.firings, silent.mean, silent.examples, silent.cofiring) == (0, None, [], [])
    assert np.isnan(silent.group_floors).all()


def test_what_is_below_the_threshold_is_silent(make_text):
    latents = torch.zeros(1, 8, 2)
    latents[0, [2, 3, 4], 0] = torch.tensor([1.0, -2.0, 4.0])
    latents[0, [3, 4], 1] = torch.tensor([1.0, 1.5])
    samples = samples_of(make_text(latents), threshold=1, skip_first=0, groups=1, per_group=3, random=9)
    first = samples.latent(0)
    assert (first.firings, first.mean, first.largest) == (2, 3.0, 4.0)  # |-2| and 4; 1 is not above 1
    assert [e.activations.tolist().count(0) for e in first.top] == [len(first.top[0].pieces) - 2]
    assert samples.latent(1).firings == 1
    assert first.cofiring == []  # they fire together once
    fired = [window.activations(1).tolist() for window in samples.random_windows()]
    assert {f for window in fired for f in window} <= {0, 1.5}
    assert samples.about["options"]["threshold"] == 1


def test_examples_against_all_firings(make_text, drawn):
    made = make_text(drawn(60, 12, 5, 0.3))
    samples = samples_of(made, top=4, per_group=2, before=3, after=2)
    kept = made.latents.clone()
    kept[:, 0] = 0
    for j in range(5):
        latent = samples.latent(j)
        fired = kept[..., j].nonzero().tolist()
        values = {(c, p): float(kept[c, p, j]) for c, p in fired}
        assert latent.firings == len(values)
        assert latent.mean == pytest.approx(np.mean([abs(v) for v in values.values()]), rel=1e-6)
        assert int(latent.histogram.sum()) == len(values)
        for low, high, n in zip(latent.edges, latent.edges[1:], latent.histogram, strict=False):
            if low > latent.edges[0]:
                assert n == sum(low <= abs(v) < high for v in values.values())
        assert len({(e.context, e.position) for e in latent.examples}) == len(latent.examples) == 14
        best = {}
        for (c, p), value in values.items():
            document = 2 * c + (p > 6)
            best[document] = max(best.get(document, 0), abs(value))
        expected = sorted(best.values(), reverse=True)[:4]
        assert [abs(e.value) for e in latent.top] == pytest.approx(expected, rel=1e-4)
        ranks = sorted((abs(v) for v in values.values()), reverse=True)
        for group in range(1, 6):
            part = latent.part(group)
            assert len(part) == 2
            for e in part:  # within a bin of an eighth of an octave
                end = ranks[min(len(ranks) - 1, len(ranks) * group // 5)]
                assert ranks[len(ranks) * (group - 1) // 5] * 2**0.125 >= abs(e.value) >= end / 2**0.125
        for e in latent.examples:
            row = kept[e.context, e.position - e.peak : e.position - e.peak + len(e.pieces), j]
            assert e.activations == pytest.approx(row.numpy(), abs=latent.largest / 30000)
            assert (
                e.token_ids.tolist() == made.tokens.ids[e.context][e.position - e.peak :][: len(row)].tolist()
            )
            assert e.document == 2 * e.context + (e.position > 6)


def test_nothing_hangs_on_batches_or_parts(make_text, drawn):
    made = make_text(drawn(70, 10, 6, 0.4))
    options = {"top": 3, "per_group": 2, "random": 9, "cofiring_pairs": 300}
    expected = samples_of(made, at_once=64, **options)
    for at_once, parts in ((1, 1), (7, 1), (7, 3), (1, 2)):
        found = samples_of(made, at_once=at_once, parts=parts, **options)
        assert found.about == expected.about
        for name, array in expected.arrays.items():
            if name == "mean":  # a sum in float64, in another order
                np.testing.assert_allclose(found.arrays[name], array, rtol=1e-7)
            else:
                np.testing.assert_array_equal(found.arrays[name], array, err_msg=name)


def test_equal_activations_are_drawn_all_over_the_text(make_text):
    latents = torch.zeros(400, 6, 1)
    latents[:, 2:, 0] = 1.0  # a latent of one bit
    contexts = [e.context for e in samples_of(make_text(latents), top=40).latent(0).top]
    assert 130 < np.mean(contexts) < 270  # uniform: 200, standard error 18
    assert len(set(contexts)) > 30


def test_latents_that_fire_together(make_text, drawn):
    made = make_text(drawn(50, 9, 6, 0.3))
    samples = samples_of(made, cofiring=3)
    fires = made.latents[:, 1:].reshape(-1, 6) != 0  # position 0 is skipped, and special
    for j in range(6):
        shares = {
            i: float((fires[:, i] & fires[:, j]).sum() / (fires[:, i] | fires[:, j]).sum())
            for i in range(6)
            if i != j
        }
        expected = sorted(shares.values(), reverse=True)[:3]
        found = samples.latent(j).cofiring
        assert [share for _, share in found] == pytest.approx(expected, rel=1e-6)
        assert all(shares[other] == pytest.approx(share) for other, share in found)


def test_pairs_are_bounded_by_drawing_tokens(make_text, drawn):
    made = make_text(drawn(200, 9, 20, 0.5))
    result = made.result(cofiring_pairs=1000)
    n_pairs = sum(n * (n - 1) // 2 for n in (made.latents != 0).sum(2).flatten().tolist())
    assert result.samples.about["cofiring_tokens_share"] == pytest.approx(1000 / n_pairs)
    assert 700 < int(made.last.pairs.together.counts.sum()) < 1300


def test_random_windows_have_every_code(make_text, drawn):
    made = make_text(drawn(40, 9, 5, 0.2))
    samples = samples_of(made, random=12, before=2, after=1)
    windows = samples.random_windows()
    assert len(windows) == 12
    assert sum(len(window.at) for window in windows) == len(samples.arrays["code_token"]) > 0
    text = {}
    for c, ids in enumerate(made.tokens.ids.tolist()):
        for start in range(1, 9):
            text.setdefault(tuple(ids[start : start + 4]), []).append((c, start))
    for window in windows:
        length = len(window.pieces)
        places = [
            (c, start)
            for c, ids in enumerate(made.tokens.ids.tolist())
            for start in range(1, 10 - length)
            if ids[start : start + length] == window.token_ids.tolist()
        ]
        codes = np.stack([window.activations(j) for j in range(5)], 1)
        # the letters come again every 26 tokens; one of the places has these codes
        assert any(np.allclose(made.latents[c, s : s + length].numpy(), codes, atol=1e-3) for c, s in places)


def test_documents_that_are_not_known_are_contexts(make_text):
    latents = torch.zeros(3, 8, 1)
    latents[:, 2:, 0] = torch.arange(1.0, 19.0).view(3, 6)
    made = make_text(latents, documents=torch.full((3, 8), -1))
    samples = samples_of(made)
    assert [e.value for e in samples.latent(0).top] == pytest.approx([18, 12, 6], rel=1e-4)
    assert {e.document for e in samples.latent(0).top} == {-1}


def test_first_positions_are_those_of_a_segment(make_text):
    # ^bcdefgh in segments ^bc and defgh: of the first two positions of each, b, d and e are left out
    latents = torch.ones(1, 8, 1)
    latents[:, 0] = 0
    made = make_text(latents)
    segments = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1]])
    made.tokens = replace(made.tokens, segments=segments)
    samples = samples_of(made, skip_first=2)
    assert samples.about["n_skipped"] == 3
    assert samples.latent(0).firings == 4
    assert {e.text[e.peak] for e in samples.latent(0).examples} <= {"c", "f", "g", "h"}
    assert all("d" not in e.text for e in samples.latent(0).examples if e.text[e.peak] == "c")


def test_no_text_at_all(make_text):
    result = make_text(torch.zeros(0, 8, 2)).result()
    assert result.values["n_tokens"] == 0
    assert result.values["silent"] is None
    assert result.per_latent["density"].isnan().all()
    assert result.samples.random_windows() == []


def test_written_and_read(make_text, drawn, tmp_path):
    samples = samples_of(make_text(drawn(30, 9, 5, 0.3)))
    samples.save(tmp_path / "run" / "samples" / files.FILE)
    for place in ("run", "run/samples", f"run/samples/{files.FILE}"):
        read = Samples.load(tmp_path / place)
        assert read.about == samples.about
        assert all(
            np.array_equal(read.arrays[n], a, equal_nan=True)
            for n, a in samples.arrays.items()
            if a.dtype.kind == "f"
        )
        assert [e.text for e in read.latent(2).examples] == [e.text for e in samples.latent(2).examples]
    with pytest.raises(ConfigError, match="there is no latent 5 among 5"):
        samples.latent(5)


def test_what_is_not_as_it_was_written_is_refused(make_text, drawn, tmp_path):
    samples = samples_of(make_text(drawn(30, 9, 5, 0.3)))
    file = tmp_path / files.FILE
    samples.save(file)
    whole = file.read_bytes()
    with pytest.raises(ArtifactError, match=r"there is no samples\.safetensors"):
        Samples.load(tmp_path / "nowhere")
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ArtifactError, match="was altered"):
        Samples.load(file)
    file.write_bytes(whole[:-7])
    with pytest.raises(ArtifactError, match="truncated"):
        Samples.load(file)
    file.write_bytes(whole.replace(b'"version":"1"', b'"version":"9"'))
    with pytest.raises(ArtifactError, match="version '9'"):
        Samples.load(file)
    arrays = dict(samples.arrays)
    del arrays["tokens"]
    text = json.dumps(dict(samples.about))
    header = {"format": files.FORMAT, "version": files.VERSION, "about": text}
    save_file(arrays, file, header | {"sha256": files.digest(arrays, text)})
    with pytest.raises(ArtifactError, match="holds no array tokens"):
        Samples.load(file)


def test_a_reader_needs_no_torch():
    code = "import sys, qsae_samples.samples; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_sizes(make_text, drawn):
    """20 examples of a latent, a few activations each, take some 17 bytes an example beside the text."""
    samples = samples_of(make_text(drawn(300, 40, 64, 0.01)), per_group=0)
    n = len(samples.arrays["example_start"])
    assert n > 1200
    taken = [a.nbytes for name, a in samples.arrays.items() if name.startswith(("example_", "active_"))]
    assert sum(taken) - samples.arrays["example_offsets"].nbytes < 12 * n
