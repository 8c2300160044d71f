"""Golden folders by SAELens itself: ``python write_golden.py OUT [--seed N]``, where sae-lens is.

Each OUT/CASE has a ``checkpoint`` that SAELens' own classes saved, and what its loader makes of it in
``expected.safetensors``. OUT/refused-CASE has a checkpoint alone. Of rescaled latents those before the
rescaling are kept beside (``unscaled``).

With ``--compute`` there are OUT/CASE/checkpoint and OUT/CASE/x.safetensors already, and the rest is written.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import shutil
import warnings

import sae_lens
import torch
from sae_lens import SAE
from sae_lens.saes.sae import SAEMetadata
from safetensors.torch import load_file, save_file

D, E, F, K, B = 8, 6, 24, 4, 40
HEADS = 2
WHERE = {"model_name": "gpt2-small", "hook_name": "blocks.5.hook_resid_pre", "context_size": 64}
MLP = {"hook_name": "blocks.5.ln2.hook_normalized", "hook_name_out": "blocks.5.hook_mlp_out"}


class Cases:
    """What is written: one folder a case."""

    def __init__(self, out: pathlib.Path, seed: int) -> None:
        self.out, self.generator = out, torch.Generator().manual_seed(seed)

    def normal(self, *size: int) -> torch.Tensor:
        return torch.randn(*size, generator=self.generator)

    def filled(self, sae: SAE) -> SAE:
        """With weights, biases and norms none of which is 0 or 1."""
        with torch.no_grad():
            for name, parameter in sae.named_parameters():
                value = self.normal(*parameter.shape) * (0.5 if parameter.dim() == 1 else 1)
                if name == "threshold":
                    value = value.abs() - 0.1  # a few below 0
                if name == "W_dec":
                    value *= torch.linspace(0.5, 2, len(value))[:, None]
                parameter.copy_(value)
        return sae

    def made(self, name: str, *, training: bool = False, **cfg) -> SAE:
        """An SAE of SAELens' class for an architecture."""
        kind = f"{name}Training" if training else name
        sae_class, config = (getattr(sae_lens, part) for part in _names(kind))
        metadata = SAEMetadata(**(WHERE | (MLP if "Transcoder" in name else {})))
        return self.filled(sae_class(config(d_in=D, d_sae=F, metadata=metadata, **cfg)))

    def saved(self, case: str, sae: SAE, *, inference: bool = False) -> pathlib.Path:
        """Its checkpoint, as SAELens saves it."""
        path = self.out / case / "checkpoint"
        (sae.save_inference_model if inference else sae.save_model)(path)
        return path

    def expected(self, case: str, x: torch.Tensor | None = None) -> None:
        """What SAELens' loader makes of a case's checkpoint."""
        x = self.normal(B, D) if x is None else x
        save_file(computed(self.out / case / "checkpoint", x), self.out / case / "expected.safetensors")

    def case(self, case: str, name: str, *, inference: bool = False, **cfg) -> None:
        self.saved(case, self.made(name, **cfg), inference=inference)
        self.expected(case)

    def old(self, case: str, tensors: dict[str, torch.Tensor], **cfg) -> None:
        """As a SAELens from before version 6 wrote it, which cannot be installed beside this one."""
        path = self.out / case / "checkpoint"
        path.mkdir(parents=True)
        save_file(tensors, path / "sae_weights.safetensors")
        (path / "cfg.json").write_text(json.dumps({"d_in": D, "d_sae": F, "dtype": "torch.float32"} | cfg))
        self.expected(case)


def _names(kind: str) -> tuple[str, str]:
    return (kind, f"{kind}Config") if "Transcoder" in kind else (f"{kind}SAE", f"{kind}SAEConfig")


def computed(path: pathlib.Path, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """x, and latents and reconstruction by SAELens' own loader, in float32."""
    sae = SAE.load_from_disk(path, dtype="float32")
    given = x.unflatten(-1, (HEADS, -1)) if sae.hook_z_reshaping_mode else x
    with torch.no_grad():
        latents = sae.encode(given)
        found = {"x": x, "latents": latents, "reconstruction": sae(given).flatten(1)}
        if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
            found["unscaled"] = latents / sae.W_dec.norm(dim=1)
    return {name: tensor.contiguous() for name, tensor in found.items()}


def write(out: pathlib.Path, seed: int) -> None:
    cases = Cases(out, seed)
    write_inference(cases)
    write_training(cases)
    write_old(cases)
    write_several(cases)
    write_refused(cases)


def write_inference(cases: Cases) -> None:
    cases.case("standard", "Standard")
    cases.case("standard-nothing-subtracted", "Standard", apply_b_dec_to_input=False)
    cases.case("standard-bfloat16", "Standard", dtype="bfloat16")
    cases.case("topk", "TopK", k=K)
    cases.case("topk-rescaled", "TopK", k=K, rescale_acts_by_decoder_norm=True)
    cases.case("jumprelu", "JumpReLU")
    cases.case("gated", "Gated")
    for name, kind in {
        "transcoder": "Transcoder",
        "skip-transcoder": "SkipTranscoder",
        "jumprelu-transcoder": "JumpReLUTranscoder",
        "jumprelu-skip-transcoder": "JumpReLUSkipTranscoder",
    }.items():
        cases.case(name, kind, d_out=E, apply_b_dec_to_input=False)
    sae = cases.made("Standard", reshape_activations="none")
    sae.cfg.reshape_activations, sae.cfg.metadata.hook_name = "hook_z", "blocks.5.attn.hook_z"
    cases.saved("hook-z", sae)
    cases.expected("hook-z")


def write_training(cases: Cases) -> None:
    average = "expected_average_only_in"
    path = cases.saved(
        "training-average", cases.made("Standard", training=True, normalize_activations=average)
    )
    torch.save({"step": 3}, path / "trainer_state.pt")
    (path / "activation_scaler.json").write_text(json.dumps({"scaling_factor": 1.75}))
    cases.expected("training-average")
    cases.case("training-topk-saved", "TopK", training=True, inference=True, k=K)
    sae = cases.made("BatchTopK", training=True, k=K)
    sae.topk_threshold.fill_(1.5)
    cases.saved("batchtopk-saved", sae, inference=True)
    cases.expected("batchtopk-saved")


def write_old(cases: Cases) -> None:
    tensors = {"W_enc": cases.normal(D, F), "b_enc": cases.normal(F), "b_dec": cases.normal(D)}
    tensors["W_dec"] = cases.normal(F, D)
    where = {"model_name": "gemma-2b", "hook_point": "blocks.6.hook_resid_post", "context_size": 32}
    more = {
        "hook_point_head_index": None,
        "dataset_path": "some/text",
        "noise_scale": 0.0,
        "l1_coefficient": 1.0,
    }
    ones = {"scaling_factor": torch.ones(F)}
    cases.old(
        "old-standard", tensors | ones, activation_fn_str="relu", normalize_activations=False, **where, **more
    )
    topk = {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}, "architecture": "standard"}
    centred = {"model_from_pretrained_kwargs": {"center_writing_weights": True}, "model_name": "gpt2-small"}
    cases.old("old-topk", tensors, hook_name="blocks.1.hook_resid_pre", **topk, **centred)
    cases.old("old-hook-z", tensors, hook_name="blocks.1.attn.hook_z", sae_lens_training_version="5.9.1")


def write_several(cases: Cases) -> None:
    """As MultiSAETrainingRunner leaves them: a folder for each."""
    out, expected = cases.out / "several", {}
    for layer in (10, 9):
        sae = cases.made("Standard")
        sae.cfg.metadata.hook_name = f"blocks.{layer}.hook_resid_post"
        path = out / "checkpoint" / f"sae_{layer}"
        sae.save_model(path)
        found = computed(path, cases.normal(B // 3, D))
        expected |= {f"sae_{layer}/{name}": tensor for name, tensor in found.items()}
    save_file(expected, out / "expected.safetensors")


def write_refused(cases: Cases) -> None:
    cases.saved("refused-abstopk", cases.made("AbsTopK", k=K))
    cases.saved("refused-matching_pursuit", cases.made("MatchingPursuit"))
    temporal = cases.made("Temporal", n_heads=2, bottleneck_factor=2, kval_topk=K, sae_diff_type="topk")
    cases.saved("refused-temporal", temporal)
    for word in ("layer_norm", "constant_norm_rescale"):
        cases.saved(f"refused-{word}", cases.made("Standard", normalize_activations=word))
    whitened = cases.made("Standard", training=True, normalize_activations="covariance_whitening")
    cases.saved("refused-covariance_whitening", whitened)
    cases.saved("refused-batchtopk", cases.made("BatchTopK", training=True, k=K))
    nested = cases.made("MatryoshkaBatchTopK", training=True, k=K, matryoshka_widths=[8, F])
    cases.saved("refused-matryoshka_batchtopk", nested)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compute", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.compute:
        for file in options.out.glob("*/x.safetensors"):
            found = computed(file.parent / "checkpoint", load_file(file)["x"])
            save_file(found, file.parent / "expected.safetensors")
        return
    shutil.rmtree(options.out, ignore_errors=True)
    torch.manual_seed(options.seed)
    write(options.out, options.seed)


if __name__ == "__main__":
    main()
