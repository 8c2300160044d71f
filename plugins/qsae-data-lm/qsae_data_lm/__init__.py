"""Data source ``lm``: hidden states of a Hugging Face language model; and the command ``qsae sites``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import field_validator

from qsae_core import ComponentSpec, PlacesConfig, hookimpl, option

if TYPE_CHECKING:
    import click


class LmConfig(PlacesConfig):
    """Hidden states of a language model, read at one site while it runs over text, or at two for transcoders;
    in one layer or in several at once, or at any set of places.

    The model is any Hugging Face causal LM or BERT-type encoder of a known architecture (`qsae sites
    MODEL` says what it offers); without options it is a small Llama that comes with this plugin, on the
    Python standard library's own source and documentation. Text is packed into full contexts; BOS, EOS
    and other special positions are read by the model but neither trained on nor measured. The vectors
    come shuffled within blocks, and a run resumes at the very next vector.
    """

    model: str = option(
        "builtin",
        "`builtin`, a model directory (safetensors weights), a .gguf file, or a Hugging Face model id, of "
        "another revision than `main` as ID@REVISION",
    )
    text: str | None = option(
        None, "text file, or folder whose text files are read; none: the built-in text", min_length=1
    )
    dataset: str | None = option(
        None,
        "Hugging Face dataset id, or local dataset file or folder",
        instead_of="text",
        min_length=1,
    )
    dataset_name: str | None = option(None, "configuration of the dataset, where it has several")
    dataset_split: str = option(
        "train", "split of the dataset that is read", aliases=("split",), min_length=1
    )
    dataset_column: str | None = option(
        None,
        "column with the text; none: the one column of strings that is clearly the longest, or with a chat "
        "template the one of conversations",
    )
    streaming: bool = option(
        True,
        "read the dataset as it is needed; else download it first, or convert it, to a table on disk that is "
        "shuffled as a whole",
    )
    shuffle_buffer: int = option(
        1000, "rows of a streamed dataset that are in memory and shuffled together", gt=0
    )
    chat_template: str | None = option(
        None,
        "for datasets of conversations: `own`, the template that comes with the tokenizer, or a jinja file",
        min_length=1,
    )
    roles: str = option(
        "all",
        "whose messages of a conversation are trained on and measured: all, or roles (`assistant`, "
        "`user,assistant`); the rest is only read",
        allowed="all, or roles separated by commas, such as user,assistant",
        pattern=r"^[^,\s]+(,[^,\s]+)*$",
    )
    separate_documents: bool = option(
        False,
        "let no document see another one in its context: each is read as if it were alone, with BOS before "
        "it and positions from 0",
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
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = option(
        "auto", "number format that the model computes in; auto: bf16 where the device has it, else fp32"
    )
    load_in: Literal["8bit", "4bit"] | None = option(
        None, "quantize the model's weights while it is loaded, with bitsandbytes; none: as they are stored"
    )
    device_map: Literal["auto", "balanced", "sequential"] | dict[str, int | str] | None = option(
        None,
        "spread the model over the GPUs that there are, with accelerate: auto (or balanced) evenly, "
        "sequential one after the other, or a mapping of modules to devices; none: it is on the run's device",
        allowed="auto, balanced, sequential, none, or a mapping such as "
        "{model.embed_tokens: 0, model.layers: 1, ...}",
    )

    @field_validator("roles", mode="before")
    @classmethod
    def _roles_as_text(cls, roles: Any) -> Any:
        return ",".join(map(str, roles)) if isinstance(roles, list | tuple) else roles


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
