"""Run where sae-lens and qsae are: ``python in_saelens.py FOLDER``, with FOLDER/CASE/{stored,packed} of one
coder each. What is wrong is an AssertionError."""

from __future__ import annotations

import contextlib
import pathlib
import sys
import tempfile
import warnings
from collections.abc import Iterator

import qsae_in_saelens
import torch
from sae_lens import SAE, HookedSAETransformer
from safetensors.torch import load_file
from transformer_lens import HookedTransformerConfig

import qsae_core
from qsae_core.errors import ArtifactError, ConfigError

TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}


def equal(a: torch.Tensor, b: torch.Tensor, what: str) -> None:
    assert a.dtype == b.dtype, f"{what}: {a.dtype} and {b.dtype}"
    assert torch.equal(a, b), f"{what}: off by {(a - b).abs().max()}"


@contextlib.contextmanager
def refused(kind: type[Exception], what: str = "") -> Iterator[None]:
    """Fail unless the block raises this."""
    caught = None
    try:
        yield
    except kind as error:
        caught = error
    assert caught is not None, "it was not refused"
    assert what in str(caught)


def check_computes(sae: SAE, coder: qsae_core.MatrixCoder, x: torch.Tensor) -> None:
    """encode, decode and forward are the coder's, bit for bit; of contexts too."""
    codes = coder.encode(x)
    equal(sae.encode(x), codes.to_dense(), "encode")
    equal(sae(x), coder(x), "forward")
    contexts = x.view(4, -1, x.shape[1])
    equal(sae(contexts), coder(x).view(4, -1, coder.shape.d_out), "forward of contexts")
    if not coder.has_skip:
        equal(sae.decode(sae.encode(x)), coder.decode(codes), "decode")


def check_weights(sae: SAE, coder: qsae_core.MatrixCoder, x: torch.Tensor) -> None:
    """Matrices are those of the same function."""
    equal(sae.W_dec, coder.dictionary(), "W_dec")
    assert sae.W_enc.shape == (coder.shape.d_in, coder.n_latents)
    latents = sae.encode(x)
    pre_acts = x @ sae.W_enc + sae.b_enc
    active = latents != 0
    torch.testing.assert_close(latents[active], pre_acts[active], rtol=1e-3, atol=1e-3)
    by_hand = latents @ sae.W_dec + sae.b_dec
    if sae.W_skip is not None:
        torch.testing.assert_close(sae.decode(latents), by_hand, rtol=1e-3, atol=1e-3)
        by_hand = by_hand + x @ sae.W_skip.T
    torch.testing.assert_close(sae(x), by_hand, rtol=1e-3, atol=1e-3)


def check_casts(sae: SAE, folder: pathlib.Path, x: torch.Tensor) -> None:
    """Types of what goes in and out change, and packed bytes do not."""
    before = {name: tensor.clone() for name, tensor in sae.state_dict().items()}
    wanted = sae(x)
    sae.to(torch.bfloat16).to("cpu")
    assert sae(x.bfloat16()).dtype == sae.encode(x).dtype == sae.W_dec.dtype == torch.bfloat16
    half = SAE.load_from_disk(folder, dtype="bfloat16")
    for name, tensor in before.items():
        assert tensor.dtype == torch.uint8
        equal(sae.state_dict()[name], tensor, f"{name} after a cast")
        equal(half.state_dict()[name], tensor, f"{name}, loaded as bfloat16")
    equal(half(x), sae(x), "both ways to bfloat16")
    equal(sae.float().to(torch.float32)(x), wanted, "back in float32")


def check_folded(sae: SAE, folder: pathlib.Path, x: torch.Tensor) -> None:
    """Atoms of norm 1, the same reconstructions, and the same again after it is saved."""
    latents, output, norms = sae.encode(x), sae(x), sae.W_dec.norm(dim=1)
    sae.fold_W_dec_norm()
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(len(norms)), **TOLERANCE)
    torch.testing.assert_close(sae.encode(x), latents * norms, **TOLERANCE)
    torch.testing.assert_close(sae(x), output, rtol=1e-3, atol=1e-3)
    check_weights_folded(sae, x)
    with tempfile.TemporaryDirectory() as place:
        sae.save_model(place)
        equal(SAE.load_from_disk(place)(x), sae(x), "folded, saved and loaded")
    again = SAE.load_from_disk(folder, fold_W_dec_norm=True)
    equal(again(x), sae(x), "folded as it is loaded")
    for fold in (sae.fold_activation_norm_scaling_factor, sae.fold_activation_whitening):
        with refused(NotImplementedError, "export RUN --format saelens"):
            fold(2.0)


def check_weights_folded(sae: SAE, x: torch.Tensor) -> None:
    latents = sae.encode(x)
    pre_acts, active = x @ sae.W_enc + sae.b_enc, latents != 0
    torch.testing.assert_close(latents[active], pre_acts[active], rtol=1e-3, atol=1e-3)


def check_saved(sae: SAE, folder: pathlib.Path) -> None:
    """What SAELens saves has the same weights' file, byte for byte."""
    with tempfile.TemporaryDirectory() as place:
        weights, _ = sae.save_model(place)
        assert weights.read_bytes() == (folder / "sae_weights.safetensors").read_bytes()


def check_refuses_damage(folder: pathlib.Path) -> None:
    """An altered byte is an error, wherever it is."""
    sae = SAE.load_from_disk(folder)
    for name, tensor in load_file(folder / "sae_weights.safetensors").items():
        altered = {**sae.state_dict(), name: tensor.clone()}
        altered[name][len(tensor) // 2] ^= 1
        with refused(ArtifactError):
            sae.load_state_dict(altered)


def check_in_a_model(folder: pathlib.Path) -> None:
    """A HookedSAETransformer computes with it in place, and its hooks see latents."""
    sae = SAE.load_from_disk(folder)
    hook, coder = sae.cfg.metadata.hook_name, sae.coder
    torch.manual_seed(0)
    shape = {
        "n_layers": 3,
        "d_model": sae.cfg.d_in,
        "n_ctx": 16,
        "d_head": 32,
        "d_vocab": 50,
        "act_fn": "gelu",
    }
    model = HookedSAETransformer(HookedTransformerConfig(**shape))
    tokens = torch.arange(16)[None]

    def replaced(x: torch.Tensor, hook: object) -> torch.Tensor:
        return coder(x.flatten(0, -2)).view_as(x)

    wanted = model.run_with_hooks(tokens, fwd_hooks=[(hook, replaced)])
    logits, cache = model.run_with_cache_with_saes(tokens, saes=[sae])
    equal(logits, wanted, "logits")
    equal(cache[f"{hook}.hook_sae_acts_post"], sae.encode(cache[f"{hook}.hook_sae_input"]), "cached latents")
    kept = model.run_with_saes(tokens, saes=[sae], use_error_term=True)
    torch.testing.assert_close(kept, model(tokens), rtol=1e-3, atol=1e-3)

    def raised(acts: torch.Tensor, hook: object) -> torch.Tensor:
        return acts + 1

    hooks = [(f"{hook}.hook_sae_acts_post", raised)]
    steered = model.run_with_hooks_with_saes(tokens, saes=[sae], fwd_hooks=hooks)
    assert not torch.equal(steered, logits)


def main(cases: pathlib.Path) -> None:
    warnings.simplefilter("ignore")
    assert issubclass(qsae_in_saelens.QsaeSAE, SAE)
    for case in sorted(cases.iterdir()):
        coder, folder = qsae_core.load(case / "stored"), case / "packed"
        noise = torch.randn(64, coder.shape.d_in, generator=torch.Generator().manual_seed(2))
        x = noise * coder.norm_in.scale + coder.norm_in.mean
        sae = SAE.load_from_disk(folder)
        assert type(sae) is qsae_in_saelens.QsaeSAE
        with torch.no_grad():
            check_computes(sae, coder, x)
            check_saved(sae, folder)
            check_casts(sae, folder, x)
            if case.name == "levels":
                with refused(ConfigError, "no dense form"):
                    assert sae.W_enc is None
            else:
                check_weights(sae, coder, x)
                check_folded(sae, folder, x)
            check_refuses_damage(folder)
            if coder.is_autoencoder:
                check_in_a_model(folder)
        print(f"{case.name}: {type(coder).__name__}")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
