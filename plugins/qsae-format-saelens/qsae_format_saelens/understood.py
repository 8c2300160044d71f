"""cfg.json as SAELens' own loader takes it: old names and defaults migrated, every value checked.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from packaging.version import InvalidVersion, Version

from qsae_core.errors import ArtifactError
from qsae_format_saelens.architectures import Architecture, architecture_named
from qsae_format_saelens.normalizations import check_normalization

FIRST_OF_SIX = Version("6.0.0rc0")
RENAMED = {
    "hook_point": "hook_name",
    "hook_point_head_index": "hook_head_index",
    "activation_fn_str": "activation_fn",
}
DTYPES = ("float32", "float16", "bfloat16")
K, D_OUT = 100, 768
"""What SAELens takes where cfg.json does not say it."""
METADATA = frozenset(
    (
        *("model_name", "model_class_name", "model_from_pretrained_kwargs", "prepend_bos", "context_size"),
        *("exclude_special_tokens", "neuronpedia_id", "seqpos_slice", "dataset_path", "sae_lens_version"),
        *("sae_lens_training_version", "hook_name", "hook_head_index", "hf_hook_name"),
        *("hook_name_out", "hook_head_index_out", "hf_hook_name_out"),
    )
)
"""What before version 6 stands beside the rest."""
Cfg = Mapping[str, Any]


@dataclass(frozen=True)
class Rule:
    """What of cfg.json says which function the weights are of."""

    architecture: str
    d_in: int
    d_sae: int
    d_out: int
    subtracts_b_dec: bool
    k: int | None
    rescales: bool
    """Whether latents are ranked, and counted, times the norms of their atoms (TopK alone)."""

    @property
    def kind(self) -> Architecture:
        """What the architecture is."""
        return architecture_named(self.architecture, "")

    def cfg(self) -> dict[str, Any]:
        """In the words of version 6."""
        kind = self.kind
        found = {
            "architecture": self.architecture,
            "d_in": self.d_in,
            "d_sae": self.d_sae,
            "apply_b_dec_to_input": self.subtracts_b_dec,
        }
        found |= {"d_out": self.d_out} if kind.is_transcoder else {}
        topk = {"k": self.k, "rescale_acts_by_decoder_norm": self.rescales}
        return found | (topk if kind.has_k else {})


@dataclass(frozen=True)
class Understood:
    """All that is read of cfg.json."""

    rule: Rule
    dtype: str
    """To which SAELens rounds every tensor that it loads."""
    normalizes: str
    reads_heads: bool
    """Whether SAELens puts the heads of hook_z one after another before it encodes."""
    is_finetuned: bool
    names_k: bool
    is_old: bool
    """Whether it is from before version 6."""
    metadata: Cfg


def understood(cfg: Cfg, where: str) -> Understood:
    """What SAELens takes cfg.json for.

    Raises:
        ArtifactError: if a value is missing or of another type, or the function is not one of a dense form.
    """
    old = is_old(cfg, where)
    cfg = migrated(cfg, where) if old else cfg
    architecture = _text(cfg, "architecture", where)
    kind = architecture_named(architecture, where)
    normalizes = check_normalization(cfg.get("normalize_activations", "none"), where)
    dtype = _text(cfg, "dtype", where).removeprefix("torch.")
    if dtype not in DTYPES:
        raise ArtifactError(
            f"dtype is {dtype!r}, which is not read here",
            where=where,
            allowed=", ".join(DTYPES),
            next="in SAELens: SAE.load_from_disk(PATH, dtype='float32').save_model(OTHER)",
        )
    d_in, d_sae = _count(cfg, "d_in", where), _count(cfg, "d_sae", where)
    d_out = _count(cfg, "d_out", where, D_OUT) if kind.is_transcoder else d_in
    subtracts = _flag(cfg, "apply_b_dec_to_input", where, True)
    if kind.is_transcoder and subtracts:
        raise ArtifactError(
            f"apply_b_dec_to_input is true of architecture {architecture!r}, which SAELens refuses",
            where=where,
            allowed='"apply_b_dec_to_input": false',
            next="write it into cfg.json: transcoders subtract nothing from what they encode",
        )
    k = _count(cfg, "k", where, K) if kind.has_k else None
    rescales = kind.has_k and _flag(cfg, "rescale_acts_by_decoder_norm", where, False)
    return Understood(
        Rule(architecture, d_in, d_sae, d_out, subtracts, k, rescales),
        dtype,
        normalizes,
        _reads_heads(cfg, where),
        _flag(cfg, "finetuning_scaling_factor", where, False),
        "k" in cfg,
        old,
        _mapping(cfg, "metadata", where),
    )


def is_old(cfg: Cfg, where: str) -> bool:
    """Whether cfg.json is from before version 6: by its own version, or where it names none.

    Raises:
        ArtifactError: if the version is none.
    """
    version = cfg.get("sae_lens_version") or _mapping(cfg, "metadata", where).get("sae_lens_version")
    if not version:
        return True
    try:
        return Version(version) < FIRST_OF_SIX
    except (InvalidVersion, TypeError) as error:
        raise ArtifactError(
            f"sae_lens_version is {version!r}, which is no version", where=where, allowed="6.54.12, say"
        ) from error


def migrated(cfg: Cfg, where: str) -> dict[str, Any]:
    """cfg.json of an older version in the words of version 6, as ``handle_pre_6_0_config`` of SAELens has it.

    Raises:
        ArtifactError: if the activation is one that version 6 would load as another.
    """
    found = {RENAMED.get(name, name): value for name, value in cfg.items()}
    hook = found.get("hook_name")
    defaults = {
        "prepend_bos": True,
        "apply_b_dec_to_input": True,
        "finetuning_scaling_factor": False,
        "sae_lens_training_version": None,
        "activation_fn": "relu",
        "architecture": "standard",
        "neuronpedia_id": None,
        "reshape_activations": "hook_z" if isinstance(hook, str) and "hook_z" in hook else "none",
    }
    found = {**defaults, **found}
    given, options = found["activation_fn"], found.get("activation_fn_kwargs", {})
    if given == "topk" or (found["architecture"] == "topk" and "activation_fn_kwargs" in found):
        if not isinstance(options, Mapping) or "k" not in options:
            raise ArtifactError(
                "activation_fn_kwargs has no k, which a TopK SAE from before SAELens 6 needs",
                where=where,
                allowed='"activation_fn_kwargs": {"k": 32}, say',
            )
        found["k"] = options["k"]
    if given == "topk":
        found["architecture"] = "topk"
    elif given != "relu":
        raise ArtifactError(
            f"activation_fn is {given!r}: SAELens computed that before version 6, and loads it as relu since",
            where=where,
            allowed="relu, topk",
            next="load it with the SAELens that trained it",
        )
    normalizes = found.get("normalize_activations")
    if isinstance(normalizes, bool) or normalizes is None:
        found["normalize_activations"] = "expected_average_only_in" if normalizes else "none"
    found["metadata"] = {name: value for name, value in found.items() if name in METADATA}
    return found


def _reads_heads(cfg: Cfg, where: str) -> bool:
    reshapes = cfg.get("reshape_activations")
    if reshapes not in (None, "none", "hook_z"):
        raise ArtifactError(f"reshape_activations is {reshapes!r}", where=where, allowed="none, hook_z")
    return reshapes == "hook_z"


# --- values of files of strangers


def _text(cfg: Cfg, name: str, where: str) -> str:
    value = cfg.get(name)
    if not isinstance(value, str):
        raise _wrong(name, value, "a word, in quotes", where)
    return value


def _count(cfg: Cfg, name: str, where: str, default: int | None = None) -> int:
    value = cfg.get(name, default)
    if type(value) is not int or not 0 < value < 2**31:
        raise _wrong(name, value, "a whole number above 0", where)
    return value


def _flag(cfg: Cfg, name: str, where: str, default: bool) -> bool:
    value = cfg.get(name, default)
    if type(value) is not bool:
        raise _wrong(name, value, "true or false", where)
    return value


def _mapping(cfg: Cfg, name: str, where: str) -> Cfg:
    value = cfg.get(name, {})
    if not isinstance(value, Mapping):
        raise _wrong(name, value, "a mapping", where)
    return value


def _wrong(name: str, value: Any, allowed: str, where: str) -> ArtifactError:
    what = f"{name} is missing" if value is None else f"{name} is {str(value)[:80]!r}"
    return ArtifactError(what, where=where, allowed=allowed)
