"""Run where sae-bench and qsae are: ``python in_saebench.py CASES MODEL``, in an empty folder, with
CASES/CASE/{stored,packed,floats} of one coder each. What is wrong is an AssertionError.

It leaves SAEBench's files in ``core`` and ``sparse_probing``, and in CASE.safetensors the vectors of which
``core`` measured sparsity and reconstruction.
"""

from __future__ import annotations

import pathlib
import sys
import warnings
from typing import Any

import torch
from bench import MODEL, compare, link_model, measure_core, measure_probing, numbers, write_texts
from plainly import Kept, Plainly
from qsae_in_saelens import QsaeSAE, for_saebench
from sae_lens import SAE
from safetensors.torch import save_file

import qsae_core
from qsae_core.coders import MatrixCoder
from qsae_core.errors import ConfigError

TOLERANCE = {"core": 1e-3, "sparse_probing": 1e-3}


class Unpackings:
    """How often float matrices are made of a packed coder."""

    def __init__(self, coder: MatrixCoder) -> None:
        self.count = 0
        for name in ("dictionary", "dense"):
            self._watch(coder, name)

    def _watch(self, coder: MatrixCoder, name: str) -> None:
        own = getattr(coder, name)

        def watched(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            return own(*arguments, **options)

        object.__setattr__(coder, name, watched)


def check_no_batch_unpacks(sae: QsaeSAE) -> None:
    """Encoding and decoding ask for no float matrix, but for the norms of atoms the first time."""
    x = torch.zeros(2, sae.cfg.d_in)
    sae(x)
    made = Unpackings(sae.coder)
    sae(x)
    assert made.count == 0, made.count
    _ = sae.W_dec
    assert made.count > 0


def check_refuses(case: pathlib.Path) -> None:
    """Those of which SAEBench would say something else than what is wrong."""
    refusal = None
    try:
        for_saebench(case / "packed", model_name=MODEL)
    except ConfigError as error:
        refusal = error
    assert refusal is not None, f"{case.name} was not refused"
    assert refusal.next is not None
    print(f"{case.name}: refused: {refusal.what}")


def measured(name: str, sae: SAE) -> tuple[dict[str, float], dict[str, float]]:
    """What ``core`` and ``sparse_probing`` find."""
    sae.cfg.metadata.model_name = MODEL
    return numbers(measure_core(name, sae)), numbers(measure_probing(name, sae))


def check_core(case: pathlib.Path, sae: QsaeSAE) -> None:
    """``core`` of the packed coder is what it is by definition, and finds atoms of norm 1."""
    kept = Kept()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Decoder weights are not normalized")
        with kept.kept():
            found = measure_core(case.name, sae)
    assert found["sae_cfg_dict"]["architecture"] == "qsae"
    plain = Plainly(qsae_core.load(case / "stored"), sae.cfg.metadata.hook_name, kept)
    x = plain.vectors()
    save_file({"x": x}, f"{case.name}.safetensors")
    ours, theirs = numbers(found), plain.numbers(x)
    off = compare({name: ours[name] for name in theirs}, theirs, f"{case.name}: core, and plainly", 1e-3)
    score = ours["model_performance_preservation.ce_loss_score"]
    print(f"{case.name}: core: ce_loss_score {score:.4f}; off a plain computation by {off:.1e}")


def biases_of_x(sae: SAE) -> dict[str, float]:
    """The column ``encoder_bias`` for x itself: SAELens' own SAEs may subtract b_dec from it first."""
    biases_F = sae.b_enc - sae.cfg.apply_b_dec_to_input * (sae.b_dec @ sae.W_enc)
    return {f"{latent}.encoder_bias": bias for latent, bias in enumerate(biases_F.tolist())}


def check_beside_floats(case: pathlib.Path) -> None:
    """SAEBench finds of the packed coder what it finds of the same one in SAELens' float weights."""
    packed, floats = SAE.load_from_disk(case / "packed"), SAE.load_from_disk(case / "floats")
    try:
        floats.fold_W_dec_norm()
        packed.fold_W_dec_norm()
    except NotImplementedError:  # a TopK of SAELens: the norms would choose other latents
        pass
    ours, theirs = measured(f"{case.name}-packed", packed), measured(f"{case.name}-floats", floats)
    theirs[0].update(biases_of_x(floats))
    for evaluation, mine, other in zip(("core", "sparse_probing"), ours, theirs, strict=True):
        off = compare(mine, other, f"{case.name}: {evaluation}, packed and in floats", TOLERANCE[evaluation])
        print(f"{case.name}: {evaluation}: {len(mine)} numbers, packed and in floats: within {off:.1e}")


def check_without_an_encoder(case: pathlib.Path) -> None:
    """Refused by name; ``sparse_probing``, which needs no encoder's weights, takes it as SAELens loads it."""
    check_refuses(case)
    sae = SAE.load_from_disk(case / "packed")
    accuracy = numbers(measure_probing(case.name, sae))["sae.sae_top_1_test_accuracy"]
    assert accuracy > 0.5
    print(f"{case.name}: sparse_probing: {accuracy}")


def main(cases: pathlib.Path, model: pathlib.Path) -> None:
    link_model(model)
    write_texts()
    for case in sorted(cases.iterdir()):
        coder = qsae_core.load(case / "stored")
        if not coder.is_autoencoder:
            check_refuses(case)
        elif not (case / "floats").exists():
            check_without_an_encoder(case)
        else:
            sae = for_saebench(case / "stored", model_name=MODEL)
            check_no_batch_unpacks(sae)
            check_core(case, for_saebench(case / "packed", model_name=MODEL))
            check_beside_floats(case)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
