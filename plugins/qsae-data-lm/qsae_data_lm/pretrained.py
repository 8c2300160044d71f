"""The one way from a model's files to objects of transformers: nothing that comes with a model is run.

Transformers would ask on the terminal whether to run a model's own code, and could fetch compiled kernels
that a config names. `from_pretrained` allows neither, and is what every part of a model is loaded with.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers.utils import logging as transformers_logging

from qsae_core.errors import DataError
from qsae_data_lm.places import locate
from qsae_data_lm.reach import hub_options, unreachable

OWN_CODE = "the model needs code that comes with it, and such code is never run"


def from_pretrained(auto: Any, model: str, part: str, **options: Any) -> Any:
    """`auto.from_pretrained` of a model's place, without its code, its prompts, and transformers' reports.

    Args:
        auto: one of transformers' Auto classes.
        model: as the user named it.
        part: what is loaded, for messages: `configuration`, `tokenizer`, `weights`.
        options: further arguments.

    Raises:
        DataError: if it cannot be loaded, with transformers' reason; if it needs code of its own.
    """
    place = locate(model)
    away = unreachable(place)
    options |= place.options | hub_options(place)
    with _quiet():
        try:
            return auto.from_pretrained(place.path, trust_remote_code=False, **options)
        except Exception as error:  # what the library raises on faulty files is of any kind
            if "trust_remote_code" in str(error):
                raise own_code(model, part) from error
            if away is not None:
                raise _away(model, part, away) from error
            raise _not_loaded(model, part, error) from error


def own_code(model: str, part: str) -> DataError:
    """The refusal of a model whose `part` is code of its own."""
    return DataError(
        f"the {part} of {model!r} cannot be loaded: {OWN_CODE}",
        where="data.model",
        allowed="a model whose architecture and tokenizer are those of transformers itself",
        next="run its code yourself, save what it computes, and train with --data tensors --data-path FILE",
    )


def check_attention(config: Any, model: str) -> None:
    """Refuse a config that names compiled attention on the hub (`kernels-community/...`), which is code.

    Raises:
        DataError: which names it.
    """
    for part in (config, config.get_text_config()):
        kernel = getattr(part, "_attn_implementation", None)
        if isinstance(kernel, str) and ("/" in kernel or ":" in kernel):
            raise DataError(
                f"the configuration of {model!r} asks for the attention kernel {kernel!r}: {OWN_CODE}",
                where="data.model",
                allowed="attn_implementation eager or sdpa",
                next="take attn_implementation out of the config.json of a copy",
            )


def _away(model: str, part: str, reason: str) -> DataError:
    return DataError(
        f"the {part} of {model!r} is not on this machine, and {reason}",
        where="data.model",
        allowed="a model directory, or a Hugging Face id that is in the cache or can be downloaded",
        next="--model DIR, a folder with a copy of it; or run it once where the Hub can be reached, which "
        "keeps it in the cache",
    )


def _not_loaded(model: str, part: str, error: Exception) -> DataError:
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    allowed = "builtin, a model directory, or a Hugging Face id that can be downloaded or is in the cache"
    if isinstance(error, ImportError):  # most of all of quantized weights
        allowed = f"{allowed}; for this one, the package that is named"
    elif not isinstance(error, OSError | ValueError | RuntimeError):
        reason = f"{type(error).__name__}: {reason}".rstrip(": ")
    return DataError(
        f"the {part} of {model!r} cannot be loaded: {reason or type(error).__name__}",
        where="data.model",
        allowed=allowed,
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
