"""The stream of vectors: what is in it, in which order, and that it resumes.

N vectors, C contexts, T positions.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from qsae_data_lm import LmConfig
from qsae_data_lm.documents import shuffled
from qsae_data_lm.source import LmSource
from safetensors.torch import load_file, save_file

from qsae_core.errors import ConfigError, DataError

Make = Callable[..., LmSource]


@pytest.fixture(scope="module")
def make(tiny: Path, text: Path) -> Make:
    """Builds a source on the tiny model and the numbered sentences: blocks of 8 contexts of 32 positions.

    In float32 also where the processor has bf16, so that vectors can be compared with those of transformers.
    """

    def build(seed: int = 0, **options: Any) -> LmSource:
        defaults: dict[str, Any] = {"model": str(tiny), "context": 32, "buffer_tokens": 256, "dtype": "fp32"}
        if "dataset" not in options:
            defaults["text"] = str(text)
        return LmSource(LmConfig(**{**defaults, **options}), seed=seed)

    return build


def first_contexts(source: LmSource, n: int) -> torch.Tensor:
    """The first contexts [C, T] of the training stream."""
    return next(source.contexts(n))[0].ids


def hidden(source: LmSource, contexts_CT: torch.Tensor, layer: int) -> torch.Tensor:
    """resid_post [C, T, D] as transformers itself gives it out (for any layer but the last)."""
    with torch.no_grad():
        found = source.language_model().model(input_ids=contexts_CT, output_hidden_states=True)
    return found.hidden_states[layer + 1]


def test_a_block_is_a_permutation_of_what_the_model_computes_over_its_contexts(make: Make) -> None:
    source = make()
    contexts_CT = first_contexts(source, 8)
    counted = contexts_CT != 0
    expected = hidden(source, contexts_CT, 1)[counted]
    batch = source.next_batch(len(expected))
    order = source._blocks._order
    assert sorted(order) == list(range(len(expected)))
    assert list(order) != sorted(order)
    torch.testing.assert_close(batch.x, expected[order])
    assert batch.y is batch.x
    assert batch.token_ids is not None
    assert batch.token_ids.tolist() == contexts_CT[counted][order].tolist()


def test_document_and_position_behind_each_vector(make: Make) -> None:
    """Of training vectors as of held-out ones, also where a context begins within a document."""
    source = make()
    of_training = list(source.contexts(8))
    taken = [source.next_batch(int(contexts.counted.sum())) for contexts, _ in of_training[:3]]
    for batch, (contexts, _) in zip(taken, of_training, strict=False):
        found = torch.stack([batch.documents, batch.positions, batch.token_ids], dim=1)
        context, position = contexts.counted.nonzero(as_tuple=True)
        at = [contexts.documents[context, position], position, contexts.ids[context, position]]
        expected = torch.stack(at, dim=1)
        assert sorted(found.tolist()) == sorted(expected.tolist())
        assert found.tolist() != expected.tolist()
    texts = {n.number: n.document.text for n in source._documents.training(0, 0, None)}
    batch = taken[0]
    for number, token in zip(batch.documents.tolist(), batch.token_ids.tolist(), strict=True):
        assert source.language_model().decode([token]) in texts[number]
    one = next(source.held_out(100, 100))
    tokens, both = next(source.held_out_contexts(100, 10**6))
    assert (
        one.positions.tolist() == both.positions[:100].tolist() == tokens.counted.nonzero()[:100, 1].tolist()
    )
    assert one.documents.tolist() == both.documents[:100].tolist() == [0] * 100


def test_bos_is_read_but_not_counted(make: Make) -> None:
    source = make()
    contexts_CT = first_contexts(source, 200)
    assert contexts_CT[:, 0].tolist() == [0] * 200
    assert int((contexts_CT == 0).sum()) > 200  # separators between documents too
    assert 0 not in source.next_batch(3000).token_ids.tolist()
    described = source.describe()
    assert described["left_out"].endswith("<|bos|>")
    assert described["left_out_of_first_block"] == f"{int((contexts_CT[:8] == 0).sum())} of 256 positions"
    assert json.loads(json.dumps(described)) == described
    for tokens, _ in source.held_out_contexts(100, 512):
        assert torch.equal(tokens.counted, tokens.ids != 0)
        assert tokens.attention.all()


@pytest.mark.parametrize("taken", [0, 1, 100, 251, 700, 5000, 90000])
def test_a_source_resumes_at_the_very_next_vector(make: Make, taken: int) -> None:
    options = {"buffer_tokens": 4096} if taken > 10000 else {}
    source = make(**options)
    for _ in range(taken // 1000):
        source.next_batch(1000)
    if taken % 1000:
        source.next_batch(taken % 1000)
    state = json.loads(json.dumps(source.state_dict()))
    resumed = make(**options)
    resumed.load_state_dict(state)
    for size in (10, 400):
        one, other = source.next_batch(size), resumed.next_batch(size)
        assert len(one) == size
        assert torch.equal(one.x, other.x)
        assert one.token_ids.tolist() == other.token_ids.tolist()
    assert source.state_dict() == resumed.state_dict()


def test_batches_of_any_size_are_cut_from_one_stream(make: Make) -> None:
    small, large = make(), make()
    parts = [small.next_batch(n).x for n in (3, 250, 700, 47)]
    torch.testing.assert_close(torch.cat(parts), large.next_batch(1000).x, rtol=0, atol=0)


def test_the_seed_decides_the_order_and_the_epoch_changes_it(make: Make) -> None:
    assert not torch.equal(make(seed=0).next_batch(50).x, make(seed=1).next_batch(50).x)
    source = make(buffer_tokens=8192)
    per_epoch = source.training_tokens
    first, second = source.next_batch(per_epoch), source.next_batch(per_epoch)
    assert source.state_dict()["epoch"] == 1
    assert first.token_ids.tolist() != second.token_ids.tolist()
    tokens = [torch.bincount(b.token_ids, minlength=4096) for b in (first, second)]
    assert (tokens[0] - tokens[1]).abs().sum() < 0.01 * per_epoch  # the same text, but for cut ends


def test_held_out_vectors_are_the_same_however_they_are_cut_and_never_trained_on(make: Make) -> None:
    source = make(held_out_share=0.2)
    whole = torch.cat([b.x for b in source.held_out(1000, 1000)])
    parts = list(source.held_out(1000, 64))
    assert [len(b) for b in parts] == [64] * 15 + [40]
    assert torch.equal(torch.cat([b.x for b in parts]), whole)
    source.next_batch(500)
    assert torch.equal(next(iter(source.held_out(1000, 1000))).x, whole)
    kept = {document.key for document in source._documents.held_out()}
    assert kept
    assert not kept & {n.document.key for n in source._documents.training(0, 0, None)}
    counted = sum(int(t.counted.sum()) for t, _ in source.held_out_contexts(1000, 512))
    assert 1000 <= counted < 1000 + source.config.context
    assert sum(len(b) for b in source.held_out(10**6, 512)) < 10**5  # all there is, and then an end


def test_vectors_can_be_trained_on(make: Make) -> None:
    source = make()
    weight = torch.ones(16, requires_grad=True)
    for x in (source.next_batch(5).x, next(source.held_out(5, 5)).x):
        (x * weight).sum().backward()
    assert weight.grad is not None


def test_a_transcoder_reads_two_sites_of_the_same_tokens(make: Make) -> None:
    source = make(source_layer=1)
    batch = source.next_batch(100)
    mlp = source.language_model().model.model.layers[1].mlp
    torch.testing.assert_close(mlp(batch.x), batch.y)
    assert (source.source_sites, source.target_sites) == (((1, "mlp_in"),), ((1, "mlp_out"),))
    assert (source.layers_in, source.layers_out, source.layer) == (1, 1, "1-1")
    described = source.describe()
    assert (described["source_sites"], described["target_sites"]) == (["1.mlp_in"], ["1.mlp_out"])
    assert torch.equal(make(layer=1, site="mlp_in").next_batch(100).x, batch.x)


def test_source_and_target_are_layers_and_sites_of_their_own(make: Make) -> None:
    source = make(source_layer=0, source_site="resid_post", target_layer=2, target_site="attn_out")
    batch, held_out = source.next_batch(100), next(source.held_out(100, 100))
    assert source.layer == "0-2-resid_post-attn_out"
    for site, name in (((0, "resid_post"), "x"), ((2, "attn_out"), "y")):
        alone = make(layer=site[0], site=site[1])
        assert torch.equal(alone.next_batch(100).x, getattr(batch, name))
        assert torch.equal(next(alone.held_out(100, 100)).x, getattr(held_out, name))


def test_a_target_that_is_the_source_makes_an_autoencoder(make: Make) -> None:
    source = make(source_site="mlp_out")
    batch = source.next_batch(10)
    assert batch.y is batch.x
    assert source.source_sites == source.target_sites == ((1, "mlp_out"),)
    assert source.layer == "1-mlp_out"


def test_several_layers_are_read_at_once(make: Make) -> None:
    source = make(layers=(0, 2))
    batch = source.next_batch(60)
    assert batch.x.shape == (60, 2, 16)
    assert (source.layers_in, source.layers_out, source.layer) == (2, 2, "0-2")
    assert source.source_sites == source.target_sites == ((0, "resid_post"), (2, "resid_post"))
    alone = make(layer=2).next_batch(60)
    assert torch.equal(batch.x[:, 1], alone.x)


def test_any_places_are_read_at_once_in_the_order_that_was_given(make: Make) -> None:
    source = make(sites="2.mlp_in,0.resid_mid", target_sites="1.mlp_out")
    batch, held_out = source.next_batch(60), next(source.held_out(60, 60))
    assert (batch.x.shape, batch.y.shape) == ((60, 2, 16), (60, 16))
    assert (source.layers_in, source.layers_out) == (2, 1)
    assert source.layer == "2.mlp_in-0.resid_mid-to-1.mlp_out"
    for layer, site, part in ((2, "mlp_in", "x0"), (0, "resid_mid", "x1"), (1, "mlp_out", "y")):
        alone = make(layer=layer, site=site)
        for found, expected in ((batch, alone.next_batch(60)), (held_out, next(alone.held_out(60, 60)))):
            of_place = found.y if part == "y" else found.x[:, int(part[1])]
            assert torch.equal(of_place, expected.x)
    with pytest.raises(DataError, match="no layer 3"):
        make(sites="2.mlp_in,3.mlp_in")


def test_names_for_result_paths(make: Make) -> None:
    source = make()
    assert (source.model_name, source.layer, source.source_sites) == ("tiny-llama", "1", ((1, "resid_post"),))
    assert make(layer=2, site="attn_out").layer == "2-attn_out"


def test_nan_in_the_model_is_an_error_with_its_place(make: Make) -> None:
    source = make()
    source.language_model().model.model.layers[1].mlp.down_proj.weight.data[3] = torch.nan
    with pytest.raises(
        DataError, match=r"NaN or infinity at layer 1, resid_post: context 0, position 1"
    ) as e:
        source.next_batch(10)
    assert "block 0" in str(e.value.where)


def test_an_interrupt_within_a_batch_loses_no_vector(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    source, undisturbed = make(), make()
    source.next_batch(100)
    undisturbed.next_batch(100)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(source.language_model(), "read", interrupt)
        with pytest.raises(KeyboardInterrupt):
            source.next_batch(300)  # the rest of this block, and then another
    resumed = make()
    resumed.load_state_dict(source.state_dict())
    expected = undisturbed.next_batch(300).x
    assert torch.equal(source.next_batch(300).x, expected)
    assert torch.equal(resumed.next_batch(300).x, expected)


def test_too_little_text_is_an_error(make: Make, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"Only {name}.")
    source = make(text=str(tmp_path))
    with pytest.raises(DataError, match="training text is shorter than one context of 32 positions"):
        source.next_batch(1)
    with pytest.raises(DataError, match="held-out text is shorter than one context"):
        list(source.held_out(1, 1))
    with pytest.raises(DataError, match="held-out text"):
        list(source.held_out_contexts(1, 1))


def test_a_text_of_one_repeated_paragraph_has_no_split_and_says_why(make: Make, tmp_path: Path) -> None:
    """Every piece of it is the same text, and a hash of the text decides: all of them are held out."""
    paragraph = "A sentence of some length, and another one after it. " * 40 + "\n\n"
    (tmp_path / "again.txt").write_text(paragraph * 40)
    source = make(text=str(tmp_path / "again.txt"))
    assert source.describe()["documents"] == source.describe()["held_out_documents"] == 40
    with pytest.raises(DataError, match="all are on the other side of the split") as caught:
        source.next_batch(1)
    assert caught.value.allowed == "a text of several different documents"
    assert len(next(source.held_out(50, 50))) == 50  # to be measured on it is fine
    (tmp_path / "again.txt").write_text(paragraph * 40 + paragraph.replace("some", "any") * 40)
    assert len(make(text=str(tmp_path / "again.txt")).next_batch(50)) == 50


def test_all_of_a_text_is_read(make: Make, text: Path) -> None:
    source, whole = make(), make()
    n_held = sum(len(batch) for batch in source.held_out(10**6, 512))
    part = whole.held_out_part()
    assert part.name().endswith(f"documents of {text}")
    part.take_all()
    n_whole = sum(len(batch) for batch in whole.held_out(10**6, 512))
    described = whole.describe()
    assert described["held_out_documents"] == described["documents"]
    assert part.name() == f"all {described['documents']} documents of {text}"
    assert n_whole > 2 * n_held
    assert sum(int(batch.counted.sum()) for batch, _ in whole.held_out_contexts(10**6, 512)) == n_whole


def test_options_that_exclude_each_other() -> None:
    for options in ({"text": "a", "dataset": "b"}, {"layer": 1, "layers": (1, 2)}):
        with pytest.raises(ValidationError, match="cannot be given together"):
            LmConfig(**options)
    for options in ({"layers": (1, 2)}, {"layer": 1}, {"site": "mlp_in"}):
        for other in ({"source_layer": 1}, {"source_site": "mlp_in"}, {"target_layer": 1}):
            if "layers" in options and "source_site" in other:
                continue  # transcoders within each of these layers
            with pytest.raises(ValidationError, match="cannot be given together"):
                LmConfig(**options, **other)


def test_a_context_longer_than_the_model_takes_is_refused(make: Make) -> None:
    with pytest.raises(DataError, match="at most 64 positions, not 65"):
        make(context=65)


def test_a_run_over_many_blocks_holds_one(make: Make) -> None:
    source = make(buffer_tokens=1024)
    for _ in range(20):
        source.next_batch(500)
        assert source._blocks._rows is not None
        assert len(source._blocks._rows) <= 1024


def test_a_run_does_not_go_on_with_another_text_or_model(make: Make, tiny: Path, tmp_path: Path) -> None:
    """Both under the names that they had, and the text with as many documents of as many characters."""
    text = tmp_path / "text.txt"
    model = Path(shutil.copytree(tiny, tmp_path / "model"))
    lines = [f"Line {n} of the text.\n\n" * 100 for n in range(60)]
    text.write_text("".join(lines))
    source = make(text=str(text), model=str(model))
    source.next_batch(300)
    state = json.loads(json.dumps(source.state_dict()))
    expected = source.next_batch(50).x
    text.write_text("".join(reversed(lines)))
    with pytest.raises(DataError, match=f"{text}: the text is another one than when the run was inter"):
        make(text=str(text), model=str(model)).load_state_dict(state)
    text.write_text("".join(lines))
    # copies, since tensors of a file lie in it, and the file is written anew
    weights = {name: w.clone() for name, w in load_file(model / "model.safetensors").items()}
    other = {name: w + 0.1 * (name == "model.norm.weight") for name, w in weights.items()}
    save_file(other, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=f"{model}: the model is another one than when the run was inter"):
        make(text=str(text), model=str(model)).load_state_dict(state)
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    again = make(text=str(text), model=str(model))
    again.load_state_dict(state)
    assert torch.equal(again.next_batch(50).x, expected)


def test_a_model_is_known_again_in_another_number_format(make: Make) -> None:
    """`--dtype auto` takes what the processor has, and a run may go on elsewhere."""
    assert make(dtype="bf16").describe()["fingerprints"] == make(dtype="fp32").describe()["fingerprints"]


def test_vectors_with_outlying_norms_are_left_out_of_training_alone(make: Make) -> None:
    """The line break is embedded a hundred times as long, and its vectors dwarf all others."""
    options = {"max_norm_multiple": 10.0, "buffer_tokens": 1024}
    source, plain = make(**options), make(buffer_tokens=1024)
    for each in (source, plain):
        weight = each.language_model().model.model.embed_tokens.weight
        weight.data[each._tokens._tokenizer.convert_tokens_to_ids("Ċ")] *= 100
    contexts_CT = first_contexts(source, 32)
    vectors = hidden(source, contexts_CT, 1)[contexts_CT != 0]
    norms = vectors.norm(dim=1)
    inside = norms <= 10 * norms.median()
    assert 0 < int((~inside).sum()) < len(inside) / 10
    batch = source.next_batch(int(inside.sum()))
    torch.testing.assert_close(batch.x, vectors[inside][shuffled(int(inside.sum()), 0, 0, 0)])
    left_out = int((~inside).sum())
    assert source.left_out() == (
        f"left out of training: {left_out:,} of {len(inside):,} vectors, whose norm was more than 10 times "
        "the median"
    )
    assert plain.left_out() is None
    held_out, all_held_out = (torch.cat([b.x for b in s.held_out(500, 500)]) for s in (source, plain))
    assert torch.equal(held_out, all_held_out)
    assert source.training_tokens is None
    state = json.loads(json.dumps(source.state_dict()))
    source.next_batch(2000)
    said = source.left_out()
    source.load_state_dict(state)
    source.next_batch(2000)
    assert source.left_out() == said


def test_the_state_is_numbers_and_two_fingerprints(make: Make) -> None:
    source = make()
    source.next_batch(1000)
    state = source.state_dict()
    place = {"epoch", "block", "cursor", "position", "remaining", "norms"}
    assert set(state) == {*place, "share", "size", "fingerprints"}
    assert set(state["fingerprints"]) == {"text", "model"}
    assert (state["epoch"], state["block"]) == (0, 4)


def test_an_encoder_is_read_with_cls_and_sep(tmp_path: Path, text: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

    words = [
        "[PAD]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "[UNK]",
        "Sentence",
        "number",
        "says",
        "that",
        "times",
        "is",
        ".",
    ]
    words += [str(digit) for digit in range(10)]
    backend = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True)]
    )
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "cls", "sep", "mask", "unk")}
    PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(tmp_path)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
    )
    BertForMaskedLM(config).save_pretrained(tmp_path)
    source = LmSource(LmConfig(model=str(tmp_path), text=str(text), context=16, buffer_tokens=64))
    contexts_CT = first_contexts(source, 4)
    assert contexts_CT[:, 0].tolist() == [1] * 4
    assert contexts_CT[:, -1].tolist() == [2] * 4
    assert set(source.next_batch(500).token_ids.tolist()) <= set(range(4, len(words)))
    assert not source.language_model().predicts_next
    assert len(next(source.held_out(20, 20))) == 20


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_stream(make: Make) -> None:
    here, there = (
        make(dtype="fp32"),
        LmSource(make().config.model_copy(update={"dtype": "fp32"}), device="cuda"),
    )
    one, other = here.next_batch(300), there.next_batch(300)
    assert other.x.is_cuda
    torch.testing.assert_close(one.x, other.x.cpu(), rtol=1e-3, atol=1e-3)
    assert one.token_ids.tolist() == other.token_ids.tolist()


@pytest.mark.parametrize(
    ("layers", "path"), [("0,2", "0-2"), ("0-2", "0-1-2"), ("2,0", "0-2"), ("middle", "0-1"), ([1, 2], "1-2")]
)
def test_layers_in_words(tiny: Path, text: Path, layers: object, path: str) -> None:
    source = LmSource(LmConfig(model=str(tiny), text=str(text), context=32, layers=layers))
    assert source.layer == path
    assert source.next_batch(5).x.shape == (5, len(path.split("-")), 16)


@pytest.mark.parametrize("layers", ["1", "1,1", "2-1"])
def test_fewer_than_two_layers(tiny: Path, text: Path, layers: str) -> None:
    with pytest.raises(ConfigError, match="fewer than two layers"):
        LmSource(LmConfig(model=str(tiny), text=str(text), context=32, layers=layers))
    with pytest.raises(ValidationError, match="layers"):
        LmConfig(layers="first")
