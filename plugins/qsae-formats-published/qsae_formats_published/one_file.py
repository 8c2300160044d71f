"""SAEs that are one ``.pt`` file, without settings: Goodfire, qresearch, OpenAI.

Goodfire, qresearch   f = max(W_enc x + b_enc, 0)              x_hat = W_dec^T f + b_dec
OpenAI                f = max(W_enc (x - b_dec) + b_enc, 0)    x_hat = W_dec^T f + b_dec
"""

from __future__ import annotations

import abc
import pathlib
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from qsae_core.contracts import Checkpoint, DenseForm, Provenance
from qsae_core.errors import ArtifactError
from qsae_core.reading import is_file_in, json_settings, torch_contents
from qsae_formats_published.published import Published, only_file


class OneFile(Published):
    """A file, or a folder with no other one of its kind, as a repository on the Hub is."""

    turned = frozenset({"W_dec"})

    def is_it(self, path: pathlib.Path) -> bool:
        """By the names of the tensors; dictionary_learning's ``ae.pt``, which may have the same, has a
        ``config.json`` beside it."""
        file = only_file(path, (".pt", ".pth"))
        if is_file_in(file.parent, "config.json") and "trainer" in json_settings(file.parent / "config.json"):
            return False
        return self.fits(_state(file))

    def read(self, path: pathlib.Path) -> Checkpoint:
        """The SAE; where its vectors are from is known by the name that the file was published under."""
        file = only_file(path, (".pt", ".pth"))
        dense = self.dense(_state(file), str(file))
        dense.validate(str(file))
        return Checkpoint(dense, "sae", self.place(file), {}, (file,))

    def dense(self, state: Mapping[str, Any], where: str) -> DenseForm:
        """What the file holds."""
        return DenseForm(**self.matrices(state, where))

    @abc.abstractmethod
    def place(self, file: pathlib.Path) -> Provenance:
        """Where its vectors are from."""


def _state(file: pathlib.Path) -> Mapping[str, Any]:
    found = torch_contents(file)
    return found if isinstance(found, dict) else {}


class Goodfire(OneFile):
    """``Llama-3.1-8B-Instruct-SAE-l19.pth``, ``Llama-3.3-70B-Instruct-SAE-l50.pt``."""

    names = ("encoder_linear.weight", "encoder_linear.bias", "decoder_linear.weight", "decoder_linear.bias")

    def place(self, file: pathlib.Path) -> Provenance:
        """By the file's name."""
        return _named(file, r"(Llama-3\.\d-\d+B-Instruct)-SAE-l(\d{1,3})\.pth?", "meta-llama/")


class DeepSeekR1(OneFile):
    """``DeepSeek-R1-Distill-Llama-8B-SAE-l19.pt``."""

    names = ("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias")

    def place(self, file: pathlib.Path) -> Provenance:
        """By the file's name."""
        return _named(file, r"(DeepSeek-R1-Distill-Llama-8B)-SAE-l(\d{1,3})\.pt", "deepseek-ai/")


def _named(file: pathlib.Path, pattern: str, owner: str) -> Provenance:
    """Of a file that is named after its model and layer."""
    named = re.fullmatch(pattern, file.name)
    return Provenance.at(int(named[2]), "resid_post", model=owner + named[1]) if named else Provenance()


class OpenAI(OneFile):
    """``LOCATION/autoencoders/LAYER.pt``, of GPT-2 small: versions 1 and 4, whose activation is ReLU."""

    names = ("encoder.weight", "latent_bias", "decoder.weight", "pre_bias")
    more = frozenset(
        {
            *("activation", "activation_state_dict"),
            *("stats_last_nonzero", "latents_activation_frequency", "latents_mean_square"),
        }
    )
    locations: ClassVar[Mapping[str, str]] = {
        "resid_delta_attn": "attn_out",
        "resid_post_attn": "resid_mid",
        "resid_delta_mlp": "mlp_out",
        "resid_post_mlp": "resid_post",
    }

    def dense(self, state: Mapping[str, Any], where: str) -> DenseForm:
        """A ReLU SAE; a file that does not say its activation is one too."""
        matrices, activation = self.matrices(state, where), state.get("activation", "ReLU")
        if activation != "ReLU":
            by_token = (
                ": with it each token is divided by its own deviation, and multiplied again after decoding; "
                "what decodes here sees the code alone"
            )
            raise ArtifactError(
                f"its activation is {activation!r}{by_token if activation == 'TopK' else ''}",
                where=where,
                allowed="'ReLU': versions 1 and 4",
            )
        return DenseForm(**matrices, subtracts_b_dec=True)

    def place(self, file: pathlib.Path) -> Provenance:
        """By the folders in which OpenAI published it."""
        named = re.search(r"(resid_[a-z_]+?)(_v\d\w*)?/autoencoders/(\d{1,2})\.pt$", file.as_posix())
        site = self.locations.get(named[1]) if named else None
        return Provenance.at(int(named[3]), site, model="gpt2") if named and site else Provenance()
