"""``qsae bench``: how fast a coder encodes and decodes, beside the same coder in float32."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

import click

from qsae_cli.commands import ConfiguredCommand, Scope, json_option, print_json, print_table
from qsae_core.errors import ConfigError
from qsae_core.runs import CODER_SLOTS, PART_SLOTS, Layer, load_plugins, resolve

if TYPE_CHECKING:
    from qsae_core.coders import LinearCoder
    from qsae_core.kernels import Arithmetic, Kind

SCOPE = Scope(slots=(*CODER_SLOTS, *PART_SLOTS), lists=(), sections=(), needs_coder=False, config_file=False)
BATCHES, QUICK_BATCHES = (1, 8, 64, 512, 4096), (1, 16)


@click.command("bench", cls=ConfiguredCommand, scope=SCOPE)
@click.argument("path", type=click.Path(path_type=pathlib.Path), required=False)
@click.option("--width", type=click.IntRange(min=1), default=512, show_default=True, help="D, without PATH.")
@click.option(
    "--batch", "batches", type=click.IntRange(min=1), multiple=True, help="Tokens at once; repeatable."
)
@click.option(
    "--screen",
    type=click.Choice(["none", "bf16", "int8"]),
    default="int8",
    show_default=True,
    help="How encoding looks for the largest latents.",
)
@click.option(
    "--arithmetic",
    type=click.Choice(["exact", "fast"]),
    default="exact",
    show_default=True,
    help="How packed weights are decoded where no compiled kernel does it.",
)
@click.option("--kernels", default="auto", show_default=True, help="auto, none, or a kernel set's name.")
@click.option(
    "--threads", type=click.IntRange(min=1), help="CPU threads of torch.  [default: torch's own choice]"
)
@click.option(
    "--repeats", type=click.IntRange(min=1), default=7, show_default=True, help="Samples; medians are shown."
)
@click.option("--quick", is_flag=True, help="Two small batches and two samples, to see that it runs.")
@json_option
def bench(
    path: pathlib.Path | None,
    layers: list[Layer],
    width: int,
    batches: tuple[int, ...],
    screen: Kind,
    arithmetic: Arithmetic,
    kernels: str,
    threads: int | None,
    repeats: int,
    quick: bool,
    as_json: bool,
) -> None:
    """Measure encode, decode and both, for the coder at PATH, or for an untrained one of --sae NAME.

    The other side is the same coder with its weights as float32, folded, through plain torch: a dense
    product, topk, embedding_bag. Bytes are those of the weights that a token makes a call read.
    """
    import torch

    from qsae_bench.inference_speed import measure

    if threads:
        torch.set_num_threads(threads)
    coder, active = _coder(path, layers, width, screen, arithmetic, kernels)
    sizes = batches or (QUICK_BATCHES if quick else BATCHES)
    found = measure(coder, sizes, 2 if quick else repeats)
    rows = [{**rate._asdict(), "times_fp32": rate.times} for rate in found.pop("rates")]
    described = _described(coder, path) | {
        "screen": screen,
        "arithmetic": arithmetic,
        "kernels": [str(a) for a in active],
        "threads": torch.get_num_threads(),
    }
    if as_json:
        print_json({**described, **found, "rows": rows})
        return
    _print(described, found, rows)


def _described(coder: LinearCoder, path: pathlib.Path | None) -> dict[str, Any]:
    return {
        "coder": str(path) if path else "untrained",
        "n_latents": coder.n_latents,
        "width": coder.shape.d_out,
        "k": coder.sparsity.fixed_k,
        "bits_per_weight": {n: m.pack().bits_per_weight for n, m in coder.matrices().items()},
    }


def _coder(
    path: pathlib.Path | None,
    layers: list[Layer],
    width: int,
    screen: Kind,
    arithmetic: Arithmetic,
    kernels: str,
) -> tuple[LinearCoder, Any]:
    from qsae_bench.inference_speed import untrained
    from qsae_core import load
    from qsae_core.coders import LinearCoder
    from qsae_core.runs import activate_kernels

    registry = load_plugins().registry
    active = activate_kernels(kernels, registry)
    if path is None:
        coder = untrained(resolve(layers, registry), registry, width, screen=screen, arithmetic=arithmetic)
    else:
        if any(layer.tree for layer in layers):
            raise ConfigError("PATH says which coder it is; leave out --sae and its parts", where=str(path))
        coder = load(path, screen=screen, arithmetic=arithmetic, kernels=kernels, registry=registry)
    if not isinstance(coder, LinearCoder):
        raise ConfigError(
            f"{type(coder).__name__} has no counterpart with one float32 encoder and decoder to compare with",
            where=str(path or "--sae"),
        )
    return coder, active


def _print(described: dict[str, Any], found: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    bits = ", ".join(f"{name} {value:.2f}" for name, value in described["bits_per_weight"].items())
    click.echo(
        f"{described['coder']}: {described['n_latents']} latents, width {described['width']}, "
        f"k {described['k']}; bits per weight: {bits}; {described['threads']} threads"
    )
    click.echo(f"{'; '.join(described['kernels']) or 'torch alone'}; screen {described['screen']}")
    columns = [
        "operation",
        "batch>",
        "tokens/s>",
        "fp32 tokens/s>",
        "x fp32>",
        "bytes/token>",
        "fp32 bytes/token>",
    ]
    print_table(columns, [_row(row) for row in rows])
    click.echo(
        f"{100 * found['same_entries']:.3f}% of float32's active entries found; "
        f"reconstructions differ by {found['relative_difference']:.1e}"
    )


def _row(row: dict[str, Any]) -> list[str]:
    return [
        row["operation"],
        f"{row['batch_size']:,}",
        f"{row['tokens_per_second']:,.0f}",
        f"{row['fp32_tokens_per_second']:,.0f}",
        f"{row['times_fp32']:.1f}",
        f"{row['bytes_per_token']:,.0f}",
        f"{row['fp32_bytes_per_token']:,.0f}",
    ]
