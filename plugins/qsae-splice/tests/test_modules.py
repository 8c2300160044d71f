"""Steering of a model of transformers itself."""

from __future__ import annotations

import pytest
import torch
from qsae_splice import Edit, ModuleSite, splice, steer

from qsae_core.errors import ConfigError, DataError

IDS = torch.tensor([[1, 17, 32, 8, 41, 5]])  # 1 is BOS
PLACE = "model.layers.1"
EDITS = [Edit(3, "add", 2, "raw", "2:4"), Edit(5, "set", 3, "raw", "generated")]


@pytest.fixture
def coder(random_coder):
    return random_coder(16, 24, seed=1, t=0.5)


def generated(model, ids, n=8, **options):
    mask = options.pop("attention_mask", torch.ones_like(ids))
    return model.generate(ids, attention_mask=mask, max_new_tokens=n, do_sample=False, **options)


def output_of(model, part, ids):
    """What a part gives in a pass: the hook comes behind those that are there."""
    seen = []
    handle = model.get_submodule(part).register_forward_hook(lambda m, a, out: seen.append(out))
    model(ids)
    handle.remove()
    return seen[0]


def test_no_edit_changes_no_bit(llama, coder) -> None:
    clean, text = llama(IDS).logits, generated(llama, IDS)
    for edits in [(), (Edit(3, "add", 9, "raw", "60:"),), (Edit(3, "scale", 1),)]:
        with steer(llama, coder, PLACE, edits, special=(1,)):
            assert torch.equal(llama(IDS).logits, clean)
            assert torch.equal(generated(llama, IDS), text)


def test_what_is_added_is_the_atom(llama, coder) -> None:
    clean = output_of(llama, PLACE, IDS)
    with steer(llama, coder, PLACE, [Edit(3, "add", 2, "raw")], special=(1,)):
        found = output_of(llama, PLACE, IDS)
    assert torch.equal(found[0, 0], clean[0, 0])  # BOS
    torch.testing.assert_close(found[0, 1:], clean[0, 1:] + 2 * coder.atoms()[3])


def test_a_cache_changes_nothing(llama, coder) -> None:
    with steer(llama, coder, PLACE, EDITS, special=(1,)) as run:
        cached = generated(llama, IDS)
        first = [applied.places.tolist() for applied in run.log]
        uncached = generated(llama, IDS, use_cache=False)
    assert first == [[2, 3], [6], [7], [8], [9], [10], [11], [12]]
    assert torch.equal(cached, uncached)
    assert not torch.equal(cached, generated(llama, IDS))


def test_logits_behind_a_cache(llama, coder) -> None:
    ids = generated(llama, IDS)
    with steer(llama, coder, PLACE, EDITS, special=(1,), prompt_tokens=6):
        whole = llama(ids).logits
        first = llama(ids[:, :7], use_cache=True)
        second = llama(ids[:, 7:], past_key_values=first.past_key_values)
    torch.testing.assert_close(torch.cat([first.logits, second.logits], 1), whole, rtol=1e-4, atol=1e-4)


def test_texts_padded_on_the_left_are_steered_as_alone(llama, coder) -> None:
    short = IDS[:, :4]
    padded = torch.cat([torch.zeros(1, 2, dtype=torch.int64), short], dim=1)
    both, mask = torch.cat([padded, IDS]), torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6])
    with steer(llama, coder, PLACE, EDITS, special=(0, 1)):
        together = generated(llama, both, attention_mask=mask)
        assert together[0, 2:].tolist() == generated(llama, short)[0].tolist()
        assert together[1].tolist() == generated(llama, IDS)[0].tolist()
    with steer(llama, coder, PLACE, [Edit(3, "add", 2, "raw")], special=(1,)) as run:
        llama(both, attention_mask=mask)  # padding is no token, whether it is special or not
    assert run.log[0].places.tolist() == [1, 2, 3, 1, 2, 3, 4, 5]


def test_beams_and_several_texts_of_a_prompt(llama, coder) -> None:
    with steer(llama, coder, PLACE, EDITS, special=(1,)) as run:
        found = generated(llama, IDS, num_beams=3, num_return_sequences=2)
    assert found.shape == (2, 14)
    assert run.log[0].sequences.tolist() == [0, 0, 1, 1, 2, 2]
    assert run.log[1].places.tolist() == [6, 6, 6]


def test_a_transcoder_of_an_mlp(llama, random_coder) -> None:
    transcoder = random_coder(16, 24, seed=3, is_autoencoder=False)
    mlp, source = f"{PLACE}.mlp", ModuleSite(f"{PLACE}.post_attention_layernorm")
    x, clean = output_of(llama, source.module, IDS), output_of(llama, mlp, IDS)
    f_T = transcoder.encode(x[0]).to_dense()[:, 4]
    assert f_T[1:].any()
    with steer(llama, transcoder, mlp, [Edit(4, "ablate")], source=source, special=(1,)):
        found = output_of(llama, mlp, IDS)
    torch.testing.assert_close(found[0, 1:], clean[0, 1:] - f_T[1:, None] * transcoder.atoms()[4])
    given = ModuleSite(mlp, "input")  # the same vectors
    with steer(llama, transcoder, mlp, [Edit(4, "ablate")], source=given, special=(1,)):
        assert torch.equal(output_of(llama, mlp, IDS), found)


def test_a_spliced_model_and_its_input_side(llama, coder) -> None:
    h = output_of(llama, PLACE, IDS)
    with splice(llama, coder, ModuleSite("model.layers.2", "input"), special=(1,)):
        spliced = llama(IDS).logits
    with splice(llama, coder, PLACE, special=(1,)):
        assert torch.equal(llama(IDS).logits, spliced)
        found = output_of(llama, PLACE, IDS)
    torch.testing.assert_close(found[0, 1:], coder.decode(coder.encode(h[0, 1:])))
    assert torch.equal(found[0, 0], h[0, 0])


def test_no_hook_is_left(llama, coder) -> None:
    def hooks() -> int:
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in llama.modules())

    clean = llama(IDS).logits
    with steer(llama, coder, PLACE, EDITS, special=(1,)):
        assert hooks() == 3
    coder.W_enc = coder.W_enc[:5]  # so that the pass itself fails
    with pytest.raises(RuntimeError), steer(llama, coder, PLACE, EDITS, special=(1,)):
        llama(IDS)
    assert hooks() == 0
    assert "generate" not in vars(llama)
    assert torch.equal(llama(IDS).logits, clean)


def test_a_model_in_half_precision(llama, coder) -> None:
    llama.to(torch.bfloat16)
    clean = llama(IDS).logits
    with steer(llama, coder, PLACE, [Edit(3, "scale", 1)], special=(1,)):
        assert torch.equal(llama(IDS).logits, clean)
    with steer(llama, coder, PLACE, [Edit(3, "add", 9, "raw")], special=(1,)):
        assert llama(IDS).logits.dtype == torch.bfloat16
        assert not torch.equal(llama(IDS).logits, clean)


def test_what_is_refused(llama, coder) -> None:
    with (
        pytest.raises(ConfigError, match=r"'model\.layer\.1' is no site") as error,
        steer(llama, coder, "model.layer.1", EDITS),
    ):
        pass
    assert "model.layers.0" in (error.value.next or "")
    with steer(llama, coder, PLACE, EDITS), pytest.raises(DataError, match="tokenizer of LlamaForCausalLM"):
        llama(IDS)
    outside = llama(IDS, use_cache=True).past_key_values
    with steer(llama, coder, PLACE, EDITS, special=(1,)):
        with pytest.raises(ConfigError, match="a part of the model was called by itself"):
            llama.model(IDS)
        with pytest.raises(ConfigError, match="not known which tokens"):
            llama(inputs_embeds=torch.zeros(1, 2, 16))
        with pytest.raises(ConfigError, match="attention mask has the shape"):
            llama(IDS, attention_mask=torch.ones(1, 3))
        with pytest.raises(ConfigError, match="the cache was made before"):
            llama(IDS[:, :1], past_key_values=outside)
