"""Data source ``lm``: hidden states of a Hugging Face language model; and the command ``qsae sites``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import field_validator, model_validator

from qsae_core import ComponentConfig, ComponentSpec, hookimpl, option
from qsae_core.errors import OptionsError

if TYPE_CHECKING:
    import click

SiteName = Literal["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_in", "mlp_out"]


TWO_LAYERS, TWO_SITES = ("source_layer", "target_layer"), ("source_site", "target_site")
PLACES = (
    "layer (or layers) and site, where the vector that is read is also to be reconstructed; or source_layer, "
    "source_site, target_layer and target_site, for a transcoder from one place to another (or layers, "
    "source_site and target_site, for transcoders within each of them)"
)


class LmConfig(ComponentConfig):
    """Hidden states of a language model, read at one site while it runs over text, or at two for transcoders;
    in one layer or in several at once.

    The model is any Hugging Face causal LM or BERT-type encoder of a known architecture (`qsae sites
    MODEL` says what it offers); without options it is a small Llama that comes with this plugin, on the
    Python standard library's own source and documentation. Text is packed into full contexts; BOS, EOS
    and other special positions are read by the model but neither trained on nor measured. The vectors
    come shuffled within blocks, and a run resumes at the very next vector.
    """

    model: str = option(
        "builtin",
        "`builtin`, a model directory (safetensors weights), a .gguf file, or a Hugging Face model id",
    )
    layer: int | None = option(None, "layer to read, counted from 0; none: the middle one", ge=0)
    site: SiteName | None = option(None, "where in the layer to read; none: resid_post")
    source_layer: int | None = option(
        None, "layer of the vector to encode, for transcoders; none: the middle one", ge=0
    )
    source_site: SiteName | None = option(None, "site of the vector to encode, for transcoders; none: mlp_in")
    target_layer: int | None = option(
        None, "layer of the vector to reconstruct, for transcoders; none: `source_layer`", ge=0
    )
    target_site: SiteName | None = option(
        None, "site of the vector to reconstruct, for transcoders; none: mlp_out"
    )
    layers: str | None = option(
        None,
        "several layers to read at once, for coders that take them or for a coder of each (`--per-layer`): "
        "numbers and ranges (`3,6,9`, `4-8`), or `middle`, the middle half; replaces `layer`",
        allowed="a list of layer numbers and ranges, such as 4,5,6 or 4-6; or middle",
        pattern=r"^(middle|\d+(-\d+)?(,\d+(-\d+)?)*)$",
    )
    text: str | None = option(
        None, "text file, or folder whose text files are read; none: the built-in text", min_length=1
    )
    dataset: str | None = option(
        None, "Hugging Face dataset id, or local dataset file or folder; streamed", min_length=1
    )
    dataset_name: str | None = option(None, "configuration of the dataset, where it has several")
    dataset_split: str = option("train", "split of the dataset that is read", min_length=1)
    dataset_column: str | None = option(
        None, "column with the text; none: the one column of strings that is clearly the longest"
    )
    context: int = option(256, "positions of a context, special ones included", ge=8)
    held_out_share: float = option(
        0.05, "share of the documents kept for evaluation; a hash of each decides", gt=0, lt=1
    )
    max_norm_multiple: float | None = option(
        None,
        "leave vectors out of training whose norm is more than so many times the median of their block; "
        "none: train on all",
        ge=1,
    )
    buffer_tokens: int = option(
        65536, "positions read as one block, within which vectors are shuffled; sets the memory used", gt=0
    )
    forward_tokens: int = option(4096, "positions that one forward pass takes, in whole contexts", gt=0)
    dtype: Literal["auto", "fp32", "bf16"] = option(
        "auto", "number format that the model computes in; auto: bf16 where the device has it, else fp32"
    )

    @field_validator("layers", mode="before")
    @classmethod
    def _list_as_text(cls, layers: Any) -> Any:
        if isinstance(layers, list | tuple):
            return ",".join(map(str, layers))
        return str(layers) if isinstance(layers, int) else layers

    @model_validator(mode="after")
    def _one_of_each(self) -> LmConfig:
        if self.text is not None and self.dataset is not None:
            raise exclusive("text", "dataset")
        if self.layers is not None and self.layer is not None:
            raise exclusive("layer", "layers")
        apart = {"layer": (*TWO_LAYERS, *TWO_SITES), "site": (*TWO_LAYERS, *TWO_SITES), "layers": TWO_LAYERS}
        for one_place, others in apart.items():
            for two in others:
                if getattr(self, one_place) is not None and getattr(self, two) is not None:
                    raise exclusive(one_place, two, allowed=PLACES)
        return self

    @property
    def has_target(self) -> bool:
        """Whether one vector is encoded and another is to be reconstructed."""
        return any(getattr(self, name) is not None for name in (*TWO_LAYERS, *TWO_SITES))


def exclusive(*options: str, allowed: str = "one of them") -> OptionsError:
    """The error for options that are given together and exclude one another."""
    return OptionsError(
        f"{' and '.join(options)} cannot be given together", allowed=allowed, exclusive=options
    )


@hookimpl
def qsae_register_data_sources() -> list[ComponentSpec]:
    """The one component of this plugin."""
    return [ComponentSpec("data", "lm", LmConfig, "qsae_data_lm.source:LmSource")]


@hookimpl
def qsae_register_commands(cli: click.Group) -> None:
    """Adds ``qsae sites``."""
    from qsae_cli.commands import LazyCommand

    line = "List the layers, sites and widths of a language model."
    cli.add_command(LazyCommand("sites", "qsae_data_lm.sites_command:sites", line))
