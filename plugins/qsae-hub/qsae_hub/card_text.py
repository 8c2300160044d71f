"""Parts of the model card, in Markdown."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from qsae_hub.address import Address
from qsae_hub.known import MEASURED, Known, mapping

WORDS = {"sae": "sparse autoencoder", "transcoder": "transcoder"}
DISTRIBUTIONS = ("qsae", "qsae-hub")


def kinds_of(coders: Sequence[Known]) -> str:
    """``a sparse autoencoder of hidden states of org/model``."""
    kinds = list(dict.fromkeys(WORDS[coder.kind] for coder in coders))
    several = len(coders) > 1 or any(len(coder.shapes) > 1 for coder in coders)
    words = " and ".join(f"{kind}s" for kind in kinds) if several else f"a {kinds[0]}"
    models = list(dict.fromkeys(shown for coder in coders if (shown := model_of(coder))))
    return f"{words} of hidden states of {', '.join(models)}" if models else words


def model_of(coder: Known) -> str | None:
    """The language model with a link, or a local one's name; None where there is none."""
    if coder.model is None:
        return None
    if coder.model_id is not None:
        return f"[{plain(coder.model_id)}](https://huggingface.co/{coder.model_id})"
    return plain(pathlib.PurePath(coder.model).name)


def how_to_load(address: Address, coders: Sequence[Known]) -> list[str]:
    """The section with Python and commands, for the first of several coders."""
    first = coders[0]
    root = plain(first.root)
    place = Address(address.repo, address.revision, root)
    several = len(first.shapes) > 1
    options = f" --path {root}" if root else ""
    options += f" --revision {address.revision}" if address.revision else ""
    one = f'coders["{next(iter(first.shapes), "")}"]'
    load = (
        f'coders = qsae_core.load_set("{place}")  # {one} is that of one layer'
        if several
        else f'coder = qsae_core.load("{place}")'
    )
    name = "coders" if several else "coder"
    shape = "[N, L, d], a layer beside the other" if several else "[N, d]"
    return [
        "",
        "## How to load",
        "",
        f"`pip install {' '.join(_distributions(coders))}`",
        "",
        "```python",
        "import qsae_core",
        "",
        load,
        f"codes = {name}.encode(x)  # x: {shape}, hidden states as the model has them",
        f"x_hat = {name}.decode(codes)",
        "```",
        "",
        "```sh",
        f"qsae pull {address.repo}{options} --out pulled",
        "qsae evaluate pulled",
        "```",
        *([f"\nOf another folder, give that in place of `{root}`."] if len(coders) > 1 and root else []),
    ]


def coder_section(address: Address, coder: Known, *, alone: bool) -> list[str]:
    """What one coder is, and what it came to."""
    rows = list(coder.rows())
    cells = [row.cells() for row in rows]
    named = [{"": row.label} | own for row, own in zip(rows, cells, strict=True)]
    told = list(dict.fromkeys(said for row in rows if (said := row.measured_on())))
    title = "The coder" if alone else f"`{plain(coder.root)}`" if coder.root else "The repository itself"
    return [
        "",
        f"## {title}",
        "",
        *table([{"": key, " ": value} for key, value in _facts(coder)]),
        *(["", *table(named)] if named else []),
        *(["", *(f"Measured on {plain(said)}." for said in told)] if told else []),
    ]


def table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Rows of heading -> cell as a Markdown table: those of numbers come last, in their order."""
    found = dict.fromkeys(heading for row in rows for heading in row)
    headings = [*(h for h in found if h not in MEASURED), *(h for h in MEASURED if h in found)]
    lines = [[h.strip() for h in headings], ["---"] * len(headings)]
    lines += [[plain(row.get(h, ""), links=True) for h in headings] for row in rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def plain(text: str, *, links: bool = False) -> str:
    """On one line, with nothing in it that Markdown or HTML would take for markup; ``links``: but those."""
    line = " ".join(text.split()).replace("<", "&lt;").replace("|", "\\|").replace("`", "'")
    return line if links else line.replace("[", "(").replace("]", ")")


def _facts(coder: Known) -> list[tuple[str, str]]:
    """What is known of a coder, in the words of the card."""
    read, written = coder.places
    shape: Mapping[str, Any] = next(iter(coder.shapes.values()), {})
    source = coder.source
    found: list[tuple[str, Any]] = [
        ("base model" if read or coder.model_id else "data", _with_commit(coder)),
        ("reads", _places(read)),
        ("reconstructs", _places(written) if written != read else None),
        ("architecture", _architecture(coder)),
        ("latents", _number(coder.option(coder.kind, "n_latents"))),
        ("width", " -> ".join(dict.fromkeys(str(shape[k]) for k in ("d_in", "d_out") if k in shape)) or None),
        ("quantized", _quantized(coder)),
        ("trained on", _trained_on(coder)),
        ("context", f"{source['context']} tokens" if isinstance(source.get("context"), int) else None),
        ("imported from", _imported(source.get("imported_from"))),
        ("qsae", mapping(coder.config.get("versions")).get("qsae")),
    ]
    return [(name, str(value)) for name, value in found if value]


def _with_commit(coder: Known) -> str | None:
    commit = coder.source.get("revision")
    return f"{model_of(coder)} at {commit}" if coder.model_id and isinstance(commit, str) else model_of(coder)


def _places(places: Sequence[str]) -> str:
    """``layer 9, resid_post; layer 10, resid_post``."""
    return "; ".join("layer {}, {}".format(*p.split(".", 1)) if "." in p else p for p in places)


def _architecture(coder: Known) -> str:
    parts = [coder.use(coder.kind)]
    for slot, option in (("sparsity", "k"), ("activation", None)):
        use = coder.use(slot)
        if use not in ("none", "?"):
            value = coder.option(slot, option) if option else None
            parts.append(f"{slot} {use}" + (f" ({option} = {value})" if value is not None else ""))
    return ", ".join(parts)


def _quantized(coder: Known) -> str | None:
    words = {"quantizer": "decoder", "encoder_quantizer": "encoder", "code_quantizer": "codes"}
    found = []
    for slot, word in words.items():
        use = coder.use(slot)
        if use in ("none", "?"):
            continue
        grid, bits = coder.option(slot, "grid"), coder.option(slot, "n_bits")
        how = ", ".join(str(v) for v in (grid, f"{bits} bits" if bits else None) if v)
        found.append(f"{word}: {use}" + (f" ({how})" if how else ""))
    return "; ".join(found) or None


def _trained_on(coder: Known) -> str | None:
    tokens = _number(coder.metrics.get("tokens"))
    read = mapping(coder.config.get("data_record", coder.source))  # by the run, which may have quantized it
    text = coder.option("data", "dataset") or read.get("text")
    of = f"{tokens} tokens" if tokens else None
    if not isinstance(text, str):
        return of
    shown = pathlib.PurePath(text).name if pathlib.PurePath(text).is_absolute() else text
    return f"{of} of {shown}" if of else shown


def _imported(record: Any) -> str | None:
    if not isinstance(record, Mapping):
        return None
    path = str(record.get("path"))
    return f"{path if '://' in path else pathlib.PurePath(path).name} (format {record.get('format')})"


def _number(value: Any) -> str | None:
    return f"{value:,}" if isinstance(value, int) else None


def _distributions(coders: Sequence[Known]) -> list[str]:
    """What loading takes: core, this plugin, and those that the coders' parts come from."""
    named = [*DISTRIBUTIONS, *(name for coder in coders for name in coder.distributions)]
    return list(dict.fromkeys(named))
