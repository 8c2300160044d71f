"""Evaluation ``autointerp``: can a latent be told, in other documents, by how it was explained?

Imports no torch.
"""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import model_validator

from qsae_core import ComponentConfig, ComponentSpec, hookimpl, option
from qsae_core.errors import OptionsError


class AutointerpConfig(ComponentConfig):
    """Detection: a judge reads where a latent fires in one half of the documents and says in words what it is
    about; from these words alone it then says in which windows of the other half the latent fires.

    1: always right; .5: as good as guessing. Beside it stands what explanations of other latents reach.
    """

    judge: Literal["rule", "hf", "endpoint"] = option(
        "rule",
        "who explains and detects: a rule on tokens, found by counting; a causal language model of Hugging "
        "Face on this machine; a model behind an OpenAI-compatible URL",
    )
    latents: int = option(
        200, "latents that are judged at most, drawn by a hash of their number among those with firings", gt=0
    )
    before: int = option(20, "tokens of a window before the one that it is around", ge=0, le=120)
    after: int = option(11, "tokens behind it", ge=0, le=120)
    top: int = option(10, "windows that explain, around the strongest firings", ge=1, le=255)
    ranks: int = option(10, "windows that explain, one of each of so many equal parts by rank", ge=0, le=255)
    positives: int = option(10, "windows that score, one of each of so many parts by rank", ge=1, le=255)
    negatives: int = option(5, "windows that score in which the latent is silent", ge=0, le=255)
    hard_negatives: int = option(
        5,
        "windows with the latent's most frequent token in which it is silent, at most",
        ge=0,
        le=255,
    )
    skip_first: int = option(1, "first positions of each context that are left out", ge=0)
    seed: int = option(0, "of the hashes that choose latents, halves and windows, and of resamples", ge=0)
    model: str | None = option(None, "the judge's model: a folder or name for hf, a name for endpoint")
    url: str | None = option(None, "where endpoint is asked, such as http://localhost:8000/v1")
    key_variable: str | None = option(
        None, "name of the environment variable that holds the key for the endpoint; None: it needs no key"
    )
    windows_per_call: int = option(5, "windows that endpoint is asked about at once", gt=0)
    temperature: float | None = option(0.0, "that the endpoint is asked for; None: it is not told one", ge=0)
    timeout: float = option(60.0, "seconds after which the endpoint is taken not to answer", gt=0)
    retries: int = option(3, "times that endpoint is asked again where it does not answer", ge=0)
    backoff: float = option(1.0, "seconds before the first of them; twice as many before each next one", ge=0)
    cache: str | None = option(
        None, "folder that keeps what the endpoint answered; None: one for all, in the user's cache"
    )

    @model_validator(mode="after")
    def _judge_has_what_it_needs(self) -> AutointerpConfig:
        if self.negatives + self.hard_negatives == 0:
            raise OptionsError("negatives and hard_negatives are both 0", allowed="1 or more of either")
        needed = {"rule": (), "hf": ("model",), "endpoint": ("url", "model")}[self.judge]
        missing = [name for name in needed if not getattr(self, name)]
        if missing:
            raise OptionsError(
                f"judge '{self.judge}' is given no {' and no '.join(missing)}",
                allowed=f"{{use: autointerp, judge: {self.judge}, {', '.join(f'{n}: ...' for n in needed)}}}",
            )
        if self.url is not None:
            _check_url(self.url)
        return self


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or "@" in parts.netloc or parts.query:
        raise OptionsError(
            "url is none that a judge can be asked at (or one with a password in it, which would be stored)",
            allowed="http://HOST:PORT/v1 or https://..., and for a key key_variable: NAME of an "
            "environment variable",
        )


@hookimpl
def qsae_register_evaluations() -> list[ComponentSpec]:
    """The one component of this plugin."""
    target = "qsae_evaluation_autointerp.evaluation:Autointerp"
    return [ComponentSpec("evaluation", "autointerp", AutointerpConfig, target)]
