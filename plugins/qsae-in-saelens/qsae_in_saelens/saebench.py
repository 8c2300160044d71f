"""A packed coder as what SAEBench evaluates: an SAE of SAELens, given as an object beside a name."""

from __future__ import annotations

import os
import pathlib
import tempfile

from qsae_format_saelens import pack
from sae_lens import SAE

from qsae_core.errors import ConfigError
from qsae_core.runs import artifact_folder
from qsae_in_saelens.sae import QsaeSAE


def for_saebench(coder: QsaeSAE | str | os.PathLike[str], *, model_name: str | None = None) -> QsaeSAE:
    """An SAE for ``selected_saes=[(NAME, SAE)]`` of SAEBench's evaluations.

    Its weights stay packed. Latents are those of atoms of norm 1, which SAEBench asks for: they are times
    the norms of the stored atoms, and reconstructions are the same.

    Args:
        coder: a folder of ``qsae export --format saelens-packed``; the folder of a run, or any with
            coder.json; or an SAE that SAELens loaded of the former, which is changed and given back.
        model_name: what TransformerLens, by which SAEBench loads it, calls the language model; None: what
            cfg.json says.

    Raises:
        ConfigError: if it is one that SAEBench's ``core`` does not measure, or nothing says whose vectors it
            is for.
        ArtifactError: if there is no sound coder.
        PluginError: if a component of the coder is not installed; the message names the distribution.
    """
    sae = coder if isinstance(coder, QsaeSAE) else _loaded(pathlib.Path(coder))
    if model_name is not None:
        sae.cfg.metadata.model_name = model_name
    _check(sae)
    sae.fold_W_dec_norm()
    return sae


def _loaded(path: pathlib.Path) -> QsaeSAE:
    if (path / "cfg.json").exists():
        sae = SAE.load_from_disk(path)
        if not isinstance(sae, QsaeSAE):
            raise ConfigError(
                f"holds an SAE of SAELens' own ({sae.cfg.architecture()}), in float weights",
                where=str(path),
                allowed="what qsae export --format saelens-packed wrote, or the folder of a run",
                next="give it to SAEBench as SAE.load_from_disk loads it",
            )
        return sae
    with tempfile.TemporaryDirectory() as holder:
        packed = pathlib.Path(holder) / "packed"
        pack(artifact_folder(path), packed)
        return _loaded(packed)


def _check(sae: QsaeSAE) -> None:
    """Raises ConfigError where SAEBench would measure something else, or say something else of a fault."""
    if not sae.coder.is_autoencoder:
        raise ConfigError(
            "it is a transcoder, and SAEBench puts what is decoded in the place of what was read",
            allowed="an SAE",
            next="qsae evaluate RUN --eval loss-recovered puts it where it belongs; qsae saebench writes "
            "SAEBench's files of that",
        )
    metadata = sae.cfg.metadata
    lacking = [name for name in ("model_name", "hook_name") if getattr(metadata, name) is None]
    if lacking:
        raise ConfigError(
            f"nothing says whose vectors it is for: no {' and no '.join(lacking)} in its cfg.metadata",
            allowed="TransformerLens' names, such as gpt2 and blocks.8.hook_resid_pre",
            next="sae = SAE.load_from_disk(PATH), set them in sae.cfg.metadata, then for_saebench(sae)",
        )
    try:
        _ = sae.W_enc
    except ConfigError as error:
        raise ConfigError(
            f"SAEBench's core reads a column of W_enc for each latent: {error.what}",
            allowed="a coder whose latents are a product with one matrix",
            next="SAEBench's sparse_probing reads none: give it SAE.load_from_disk(PATH)",
        ) from error
