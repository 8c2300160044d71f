"""The data source `lm`: hidden states of a language model while it reads text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import torch

from qsae_core import ComponentConfig
from qsae_core.contracts import Batch, DataSource, Site, TokenBatch, chosen_sites
from qsae_data_lm import LmConfig
from qsae_data_lm.context_stream import Place, contexts_of
from qsae_data_lm.documents import open_documents
from qsae_data_lm.families import Layout, layout_of
from qsae_data_lm.fingerprints import check_same, check_share, check_size, of_texts
from qsae_data_lm.harvest import Harvester
from qsae_data_lm.held_out_stream import HeldOutStream, held_out_documents
from qsae_data_lm.language_model import HfLanguageModel
from qsae_data_lm.loading import find_layout, load_config, load_model, load_tokenizer
from qsae_data_lm.placement import placement_of
from qsae_data_lm.split import HeldOutDocuments
from qsae_data_lm.tokens import TextTokenizer, check_context, check_vocabulary
from qsae_data_lm.vector_blocks import VectorBlocks

if TYPE_CHECKING:
    import pathlib

    from qsae_core.conformance import Case


class LmSource(DataSource):
    """Hidden states of a language model; see `LmConfig` for what can be chosen."""

    config: LmConfig
    for_one_layer = "--layer N"
    for_several_layers = "--layers middle, or numbers such as --layers 3,6,9; or --sites 3.mlp_in,6.resid_mid"
    for_targets = (
        "--source-layer N --target-layer N, with --source-site and --target-site where they are not mlp_in "
        "and mlp_out; or --layers 3,6,9 --source-site mlp_in --target-site mlp_out; or --sites "
        "8.mlp_in,9.mlp_in --target-sites 9.mlp_out"
    )

    def __init__(self, config: LmConfig, *, seed: int = 0, device: str = "cpu") -> None:
        super().__init__(config, seed=seed, device=device)
        model_config = load_config(config.model)
        layout = layout_of(model_config, config.model)
        self._chosen = chosen_sites(config, range(layout.n_layers))
        for layer, site in self._chosen.all:
            layout.check(layer, site)
        tokenizer = load_tokenizer(config.model)
        check_context(config.context, model_config, tokenizer, layout)
        self._documents = open_documents(config, tokenizer)
        self._text = config.text or config.dataset or "built-in text"
        self._tokens = TextTokenizer(
            tokenizer,
            config.context,
            causal=layout.family.causal,
            keep=self._documents.in_memory,
            form=self._documents.form,
            apart=config.separate_documents,
        )
        check_vocabulary(self._tokens, model_config, config.model)
        self._model = _load(config, layout, tokenizer, device)
        if config.separate_documents:
            self._model.check_segments(config.context)
        forward_contexts = max(1, config.forward_tokens // config.context)
        self._harvester = Harvester(self._model, self._tokens, *self._chosen, forward_contexts)
        self._held_out = HeldOutStream(self._documents, self._harvester, config.context, self._text)
        self.d_in, self.d_out = self._chosen.widths(lambda _: layout.width)  # these families have one
        self.layers_in, self.layers_out = len(self._chosen.sources), len(self._chosen.targets)
        self.model_name, self.layer = self._model.name, self._chosen.path_name
        self._blocks = VectorBlocks(config, self._documents, self._harvester, seed, self._text)

    @classmethod
    def conformance_cases(cls, folder: pathlib.Path) -> list[Case]:
        """The built-in model on a little text, in small blocks."""
        from qsae_core.conformance import Case

        text = folder / "text.txt"
        lines = (f"Line {n}: {n} + {n} = {2 * n}, {n} * {n} = {n * n}.\n\n" for n in range(400))
        text.write_text("".join(lines))
        small = {"text": str(text), "context": 32, "held_out_share": 0.2}
        small |= {"buffer_tokens": 1024, "forward_tokens": 512}
        return [
            Case(small),
            Case({**small, "source_layer": 0, "target_layer": 1, "target_site": "resid_post"}),
            Case({**small, "layers": [0, 1], "buffer_tokens": 100, "separate_documents": True}),
            Case({**small, "sites": "1.mlp_in,0.resid_mid", "target_sites": "1.mlp_out"}),
        ]

    # -- the training stream -------------------------------------------------------------------------

    def next_batch(self, size: int) -> Batch:
        """The next vectors of the stream; x float32 [size, d_in], or [size, L, d_in] from L layers."""
        return self._blocks.take(size)

    @cached_property
    def _fingerprints(self) -> dict[str, str]:
        """What is read -> a hash by which it is known again."""
        return {"text": of_texts(self._documents.beginning()), "model": self._model.fingerprint()}

    def state_dict(self) -> dict[str, Any]:
        """The position of the stream as JSON values, which process's it is, and by what the text and the
        model are known again."""
        known = {"size": self._documents.size(), "fingerprints": self._fingerprints}
        return {**self._blocks.place(), "share": list(self._blocks.share), **known}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue at a position; its block is computed again when the next batch is taken.

        Raises:
            DataError: if the text or the model is another one now or has grown; if the position is another
                process's.
        """
        check_size(state["size"], self._documents.size(), self._text)
        places = {"text": self._text, "model": self.config.model}
        check_same(state.get("fingerprints", {}), self._fingerprints, places)
        check_share(state["share"], self._blocks.share)
        self._blocks.go_to(**{name: state[name] for name in self._blocks.place()})

    def divide(self, rank: int, world: int) -> bool:
        """Take every ``world``-th training document, or where a dataset's files divide evenly, its files; so
        each document is read by one process alone. Positions are a process's own."""
        self._blocks.divide(rank, world)
        return True

    # -- the held-out stream -------------------------------------------------------------------------

    def held_out(self, n_tokens: int, batch_size: int) -> Iterator[Batch]:
        """Held-out vectors in the order of the text."""
        return self._held_out.vectors(n_tokens, batch_size)

    def held_out_contexts(self, n_tokens: int, batch_size: int) -> Iterator[tuple[TokenBatch, Batch]]:
        """Held-out contexts, whose documents are numbered in the order of the held-out text, and the vectors
        at their counted positions."""
        return self._held_out.contexts(n_tokens, batch_size)

    def contexts(
        self, n_contexts: int, place: Mapping[str, Any] | None = None, *, held_out: bool = False
    ) -> Iterator[tuple[TokenBatch, dict[str, Any]]]:
        """The text of one side, packed; a document's number is its place in the side's order."""
        start = Place(**(place or {}))
        if held_out:
            documents = held_out_documents(self._documents, start.position)
            found = contexts_of(documents, self._tokens, n_contexts, start)
        else:
            found = self._blocks.contexts(0, start, n_contexts)
        return ((contexts, behind._asdict()) for contexts, behind in found)

    def held_out_part(self) -> HeldOutDocuments:
        """Documents of a text that is known again by its content, whichever model reads it."""
        return self._documents.held_out_part(self._text)

    # -- what it is ----------------------------------------------------------------------------------

    @property
    def training_tokens(self) -> int | None:
        """Vectors of the first epoch; tokenizes all text. None for a streamed dataset or a limit of norms."""
        if not self._documents.finite or self.config.max_norm_multiple is not None:
            return None
        return sum(int(contexts.counted.sum()) for contexts, _ in self._blocks.contexts(0, Place(), 256))

    def describe(self) -> dict[str, Any]:
        """What is read from where, and which positions are left out (counted in the first block)."""
        first = self._blocks.first_block()
        counted = torch.ones(0, dtype=torch.bool) if first is None else first.counted
        return {
            "source": "lm",
            "model": self.config.model,
            "revision": self._model.revision,
            "architecture": self._model.layout.model_type,
            "source_sites": [str(site) for site in self.source_sites],
            "target_sites": [str(site) for site in self.target_sites],
            "width": self.d_in,
            "dtype": str(self._model.model.dtype).removeprefix("torch."),
            "load_in": self.config.load_in,
            "context": self.config.context,
            **self._documents.describe(),
            "separate_documents": self.config.separate_documents,
            "processes": self._blocks.share[1],
            "left_out": "BOS, EOS, padding and other special positions: "
            + (", ".join(self._tokens.special_names()) or "none"),
            "left_out_of_first_block": f"{int((~counted).sum())} of {counted.numel()} positions",
            "outlying_norms": self.left_out() or "trained on",
            "fingerprints": self._fingerprints,
        }

    def left_out(self) -> str | None:
        """How many vectors with outlying norms."""
        return self._blocks.left_out()

    @classmethod
    def language_model_of(cls, config: ComponentConfig, *, device: str = "cpu") -> HfLanguageModel:
        """The model of an `LmConfig`; no text is read."""
        chosen = cast(LmConfig, config)
        return _load(chosen, find_layout(chosen.model), load_tokenizer(chosen.model), device)

    def language_model(self) -> HfLanguageModel:
        """The model behind the vectors."""
        return self._model

    @property
    def source_sites(self) -> tuple[Site, ...]:
        """Where `x` is read."""
        return self._chosen.sources

    @property
    def target_sites(self) -> tuple[Site, ...]:
        """Where `y` is read."""
        return self._chosen.targets

    def close(self) -> None:
        """Lets the block go."""
        self._blocks.clear()


def _load(config: LmConfig, layout: Layout, tokenizer: Any, device: str) -> HfLanguageModel:
    model = load_model(config.model, layout, placement_of(config, device), tokenizer=tokenizer)
    model.forward_positions = config.forward_tokens
    return model
