"""The model card, README.md of a repository: written from what is known of its coders, and known again.

A card holds a checksum of itself. So one that a person has changed since is told from one that stands as it
was written, and stays.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from qsae_hub.address import Address
from qsae_hub.card_text import coder_section, how_to_load, kinds_of, table
from qsae_hub.known import NAME, VALUES, Known

FILE = "README.md"
TAGS = {"sae": ("sparse-autoencoder",), "transcoder": ("transcoder",)}
COMMON_TAGS = ("interpretability", "mechanistic-interpretability")
NO_DIGEST = "0" * 64
MARK = (
    "<!-- Written by qsae push from config.json and metrics.json, and written anew by the next one unless it "
    "was changed by hand. sha256 of this card with zeros in this place: {digest} -->"
)
_MARKED = re.compile(re.escape(MARK).replace(re.escape("{digest}"), "([0-9a-f]{64})"))
_HEADER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)


def write_card(
    address: Address,
    coders: Sequence[Known],
    *,
    license: str | None,
    base_models: Sequence[str],
    before: str | None,
) -> str:
    """The text of a card.

    Args:
        address: the repository and revision; its path is of no matter.
        coders: all that the repository has at this commit.
        license: what the header says; None: what the card before said.
        base_models: names on the Hub that the header has besides those that the coders' records name.
        before: the card that is there, if it was written here and stands as it was.
    """
    header = _header(coders, license, base_models, header_of(before) if before else {})
    title = address.repo.partition("/")[2]
    words = kinds_of(coders)
    lines = [
        "---",
        yaml.safe_dump(header, sort_keys=False, allow_unicode=True).strip(),
        "---",
        MARK.format(digest=NO_DIGEST),
        "",
        f"# {title}",
        "",
        f"{words[0].upper()}{words[1:]}, made with qsae.",
        *(["", *_overview(coders)] if len(coders) > 1 else []),
        *how_to_load(address, coders),
        *(line for coder in coders for line in coder_section(address, coder, alone=len(coders) == 1)),
        "",
        *_legend(coders),
    ]
    text = "\n".join(lines).rstrip() + "\n"
    return text.replace(NO_DIGEST, digest_of(text), 1)


def stands_as_written(text: str) -> bool:
    """Whether a card was written here, and not changed since."""
    found = _MARKED.search(text)
    return found is not None and digest_of(text.replace(found[1], NO_DIGEST, 1)) == found[1]


def digest_of(text: str) -> str:
    """Of a card whose own checksum is zeros."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def header_of(text: str) -> Mapping[str, Any]:
    """What a card's YAML header says; nothing where it has none that can be read."""
    found = _HEADER.match(text)
    try:
        header = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError:
        header = None
    return header if isinstance(header, dict) else {}


def _header(
    coders: Sequence[Known], license: str | None, base_models: Sequence[str], before: Mapping[str, Any]
) -> dict[str, Any]:
    said = before.get("base_model") or []
    models = [*(c.model_id for c in coders), *base_models, *([said] if isinstance(said, str) else said)]
    named = _once(str(model) for model in models if model)
    tags = [
        tag for coder in coders for tag in (*TAGS.get(coder.kind, ()), *COMMON_TAGS, coder.use(coder.kind))
    ]
    quantized = any(c.use("quantizer") not in ("none", "?") for c in coders)
    kept = license or before.get("license")
    return {
        "library_name": "qsae",
        **({"license": kept} if kept else {}),
        **({"base_model": named[0] if len(named) == 1 else named} if named else {}),
        "tags": [tag for tag in _once([*tags, *(["quantized"] if quantized else [])]) if NAME.fullmatch(tag)],
    }


def _overview(coders: Sequence[Known]) -> list[str]:
    rows = []
    for coder in coders:
        first = next(coder.rows(), None)
        cells = {"folder": coder.root or "(the repository itself)", "coder": coder.label}
        read, _ = coder.places
        cells["site"] = ", ".join(read)
        rows.append(cells | (first.cells() if first else {}))
    return ["## Coders", "", *table(rows)]


def _legend(coders: Sequence[Known]) -> list[str]:
    shown = {heading for coder in coders for row in coder.rows() for heading in row.cells()}
    words = {
        "FVU": "FVU is the fraction of variance unexplained on held-out vectors",
        "cosine": "cosine the mean cosine similarity of vectors and reconstructions",
        "L0": "L0 the number of active latents per token",
        "dead": "dead the share of latents that never fire there",
        "CE recovered": "CE recovered the share of the damage that zeros in place of the vectors do to the "
        "language model's cross-entropy, and that reconstructions in their place avoid",
        "KL": "KL the divergence of the model's predictions with reconstructions from those without",
        "bits/weight, decoder": "bits per weight count all that is stored for a matrix",
    }
    said = [
        words[heading] for heading in [h for _, h, _ in VALUES] + ["bits/weight, decoder"] if heading in shown
    ]
    return [f"{'; '.join(said)}."] if said else []


def _once(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))
