"""Finding and loading a language model and its tokenizer, never from pickles, with errors that help."""

from __future__ import annotations

import importlib.util
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from qsae_core.errors import DataError
from qsae_data_lm.families import Layout, layout_of
from qsae_data_lm.language_model import HfLanguageModel

BUILTIN = Path(__file__).with_name("builtin")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


class Place(NamedTuple):
    """What transformers is to load."""

    path: str
    """A directory, or a Hugging Face id."""
    gguf_file: str | None = None
    """A file in that directory that holds model and tokenizer, instead of the usual ones."""

    @property
    def options(self) -> dict[str, str]:
        """The arguments for `from_pretrained` besides the path."""
        return {} if self.gguf_file is None else {"gguf_file": self.gguf_file}

    @property
    def directory(self) -> Path | None:
        """The local directory whose files are to be looked at; None for an id or a GGUF file."""
        path = Path(self.path)
        return path if path.is_dir() and self.gguf_file is None else None


def locate(model: str) -> Place:
    """Where a model is.

    Raises:
        DataError: if `model` is no place that could hold one, or a directory without a model's config.
    """
    path = BUILTIN if model == "builtin" else Path(model).expanduser()
    if path.is_file() and path.suffix == ".gguf":
        _require_gguf()
        return Place(str(path.parent), path.name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            held = ", ".join(sorted(p.name for p in path.iterdir())[:6]) or "nothing"
            raise DataError(
                f"{path} is no model: it has no config.json (it holds {held})",
                where="data.model",
                allowed="what save_pretrained writes: config.json, tokenizer.json, *.safetensors",
            )
        return Place(str(path))
    if path.exists() or not _HUB_ID.fullmatch(model):
        raise DataError(
            f"{path} is a file, not a model" if path.exists() else f"there is no directory {path}",
            where="data.model",
            allowed="builtin, a model directory, a .gguf file, or a Hugging Face id (EleutherAI/pythia-70m)",
        )
    return Place(model)


def _require_gguf() -> None:
    if not all(importlib.util.find_spec(library) for library in ("gguf", "accelerate")):
        raise DataError(
            "reading a .gguf file needs the libraries `gguf` and `accelerate`, which are not both installed",
            where="data.model",
            next="pip install 'qsae-data-lm[gguf]'",
        )


def short_name(model: str) -> str:
    """For paths and tables: `HuggingFaceTB/SmolLM2-135M` and `models/smollm2-135m/` are `smollm2-135m`."""
    name = model if model == "builtin" else Path(model).expanduser().resolve().name.removesuffix(".gguf")
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


def load_config(model: str) -> Any:
    """The transformers config of a model.

    Raises:
        DataError: if there is none.
    """
    place = locate(model)
    with _quiet():
        try:
            return transformers.AutoConfig.from_pretrained(place.path, **place.options)
        except (OSError, ValueError, KeyError) as error:
            raise _not_loaded(model, "configuration", error) from error


def find_layout(model: str) -> Layout:
    """Layers and sites of a model, from its config alone.

    Raises:
        DataError: if there is no such model, or its architecture is not known.
    """
    return layout_of(load_config(model), model)


def load_tokenizer(model: str) -> Any:
    """The model's own tokenizer.

    Raises:
        DataError: if there is none.
    """
    place = locate(model)
    directory = place.directory
    if directory is not None and not any((directory / name).is_file() for name in _TOKENIZER_FILES):
        raise DataError(
            f"{directory} has no tokenizer",
            where="data.model",
            allowed=f"one of {', '.join(_TOKENIZER_FILES)} beside config.json",
            next="save the tokenizer there with AutoTokenizer.from_pretrained(...).save_pretrained(...)",
        )
    with _quiet():
        try:
            return transformers.AutoTokenizer.from_pretrained(place.path, **place.options)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise _not_loaded(model, "tokenizer", error) from error


def choose_dtype(name: str, device: str) -> torch.dtype:
    """The format that a model computes in; `auto` is bf16 only where the processor has it."""
    if name != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16}[name]
    if device.startswith("cuda"):
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has_bf16 = any(
            getattr(torch.cpu, check, lambda: False)()
            for check in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        )
    return torch.bfloat16 if has_bf16 else torch.float32


def load_model(model: str, layout: Layout, *, dtype: torch.dtype, device: str) -> HfLanguageModel:
    """The model in evaluation mode. Weights come from safetensors or GGUF; pickled ones are refused.

    Raises:
        DataError: if the weights are missing, pickled, or do not belong to the config.
    """
    place = locate(model)
    if place.directory is not None:
        _check_weights(place.directory)
    options: dict[str, Any] = {**place.options, "dtype": dtype, "use_safetensors": True}
    if layout.family.attention is not None:
        options["attn_implementation"] = layout.family.attention
    auto = transformers.AutoModelForCausalLM if layout.family.causal else transformers.AutoModelForMaskedLM
    with _quiet():
        try:
            loaded, info = auto.from_pretrained(  # type: ignore[misc]
                place.path, output_loading_info=True, **options
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise _not_loaded(model, "weights", error) from error
    # An encoder is often saved without its masked-LM head, which no site needs.
    head = () if layout.family.causal else ("cls.", "lm_head.")
    missing = sorted(name for name in info["missing_keys"] if not name.startswith(head or ("\0",)))
    if missing:
        raise DataError(
            f"the weights of {model!r} lack {len(missing)} tensors of the model that its config describes, "
            f"{missing[0]} the first",
            where="data.model",
        )
    return HfLanguageModel(loaded.to(device), layout, short_name(model))


def _check_weights(directory: Path) -> None:
    if any(directory.glob("*.safetensors")):
        return
    pickled = sorted(p.name for p in directory.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt"))
    if pickled:
        raise DataError(
            f"the weights in {directory} are pickled ({', '.join(pickled[:3])}), which can run any code",
            where="data.model",
            allowed="*.safetensors",
            next='if you trust them, convert them: python -c "import transformers as t; '
            f"t.AutoModelForCausalLM.from_pretrained('{directory}').save_pretrained('{directory}')\"",
        )
    raise DataError(f"{directory} has no weights", where="data.model", allowed="*.safetensors")


def _not_loaded(model: str, part: str, error: Exception) -> DataError:
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return DataError(
        f"the {part} of {model!r} cannot be loaded: {reason}",
        where="data.model",
        allowed="builtin, a model directory, or a Hugging Face id that can be downloaded or is in the cache",
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no reports from transformers; what matters is raised as an error."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
