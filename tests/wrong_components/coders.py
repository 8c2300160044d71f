"""Wrong SAEs and transcoders, each made from the kit's right SAE."""

from __future__ import annotations

import pathlib
import random
from dataclasses import replace
from typing import Any

import torch
from pydantic import model_validator
from torch import Tensor, nn

from qsae_core import CoderConfig, ComponentSpec, TranscoderConfig, kernels
from qsae_core.conformance import Case
from qsae_core.conformance.evaluation import ReferenceCoder
from qsae_core.contracts.coder import CoderShape, LossOutput, Parts, SparseCoder
from qsae_core.contracts.codes import SparseCodes
from qsae_core.contracts.data import Batch
from qsae_core.contracts.dense import DenseForm


class RightConfig(CoderConfig):
    """No options of its own."""


class RightSAE(ReferenceCoder):
    """The kit's SAE, with one sample configuration, so that these tests are quick."""

    @classmethod
    def conformance_cases(cls, folder: pathlib.Path) -> list[Case]:
        return [Case()]


class RightTranscoder(RightSAE):
    """Squared error of a target in the target's own normalised space."""

    is_autoencoder = False
    subtract_b_dec = False

    def loss(self, batch: Batch) -> LossOutput:
        W_enc, W_dec = self.W_enc.rows(), self.W_dec.rows()
        y = self.norm_out(batch.y)
        codes = self.encode_normalized(self.norm_in(batch.x), W_enc, W_dec)
        y_hat = self.decode_normalized(codes, W_dec)
        return LossOutput({"mse": (y - y_hat).square().sum(1).mean()}, codes, y, y_hat)


class SkipConfig(TranscoderConfig):
    """With a skip connection, if wanted."""


class RightSkip(RightSAE):
    """The same through ``training_pass``, which knows of the skip connection."""

    is_autoencoder = False
    subtract_b_dec = False

    @classmethod
    def conformance_cases(cls, folder: pathlib.Path) -> list[Case]:
        return [Case({"skip": True}), Case({"skip": False})]

    def loss(self, batch: Batch) -> LossOutput:
        _, codes, y_hat, _, _ = self.training_pass(batch)
        y = self.norm_out(batch.y)
        return LossOutput({"mse": (y - y_hat).square().sum(1).mean()}, codes, y, y_hat)


class ForgetsInputs(RightSkip):
    """Has a skip connection and says that it has none."""

    @property
    def has_skip(self) -> bool:
        return False

    def encode(self, x: Tensor) -> SparseCodes:
        codes = super().encode(x)
        return codes if self.W_skip is None else replace(codes, inputs=x)

    def decode(self, codes: SparseCodes) -> Tensor:
        x_hat = super().decode(codes)
        return x_hat if codes.inputs is None else x_hat + self.norm_out.scale * codes.inputs[:, :1]


class DropsInputs(RightSkip):
    """Decodes codes without inputs as if it had no skip connection."""

    def decode(self, codes: SparseCodes) -> Tensor:
        if self.has_skip and codes.inputs is None:
            zeros = torch.zeros(codes.batch_size, self.shape.d_in)
            return super().decode(replace(codes, inputs=zeros))
        return super().decode(codes)


class RightAcross(RightSAE):
    """Of two layers at once."""

    reads_layers = True
    normalizes_layers = True

    @classmethod
    def conformance_cases(cls, folder: pathlib.Path) -> list[Case]:
        return [Case({}, {"layers_in": 2, "layers_out": 2})]

    def loss(self, batch: Batch) -> LossOutput:
        x, codes, x_hat, _, _ = self.training_pass(batch)
        terms = {"mse": (x - x_hat).square().sum(1).mean()}
        return LossOutput(terms, codes, self.norm_out.by_layer(x), self.norm_out.by_layer(x_hat))


class ReadsLaterLayers(RightAcross):
    """Says that a layer hangs on the ones before it, and takes the later ones for zeros."""

    def layers_read(self, layer: int) -> tuple[int, ...]:
        return tuple(range(layer + 1))

    def reconstruct_layer(self, x: Tensor, layer: int) -> Tensor:
        later = x.new_zeros(len(x), self.shape.layers_in - x.shape[1], x.shape[2])
        return super().reconstruct_layer(torch.cat([x, later], 1), layer)


class CallsItselfATranscoder(RightTranscoder):
    """Registered as an SAE."""


class ForwardHasMore(RightSAE):
    """forward adds what decode does not know."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0.01 * x


class LongIndices(RightSAE):
    """Codes with int64 indices."""

    def encode(self, x: Tensor) -> SparseCodes:
        codes = super().encode(x)
        return replace(codes, indices=codes.indices.long())


class LossIsNoScalar(RightSAE):
    """A loss term for each token's sum."""

    def loss(self, batch: Batch) -> LossOutput:
        output = super().loss(batch)
        return output._replace(terms={name: term[None] for name, term in output.terms.items()})


class ClimbsTheLoss(RightSAE):
    """Turns every gradient around."""

    def before_step(self) -> None:
        super().before_step()
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad.neg_()


class UnusedBias(RightSAE):
    """A parameter that no loss term reads."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.b_gate = nn.Parameter(torch.zeros(self.n_latents))


class DeclaredUnusedBias(UnusedBias):
    """The same, declared."""

    without_gradient = frozenset({"b_gate"})


class CountsInEvaluation(RightSAE):
    """Counts the tokens that it encodes, in evaluation mode too."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.register_buffer("tokens", torch.zeros(()))

    def encode(self, x: Tensor) -> SparseCodes:
        self.tokens += len(x)
        return super().encode(x)


class WrongNorms(RightSAE):
    """Norms that are not those of its atoms."""

    def atom_norms(self) -> Tensor:
        return super().atom_norms() * 2


class OneLevelForAll(RightSAE):
    """Says that values are stored as one bit, which they are not."""

    def code_levels(self, codes: SparseCodes) -> Tensor:
        return codes.active.to(torch.uint8)


class Undetermined(RightSAE):
    """Starts from a generator that no seed reaches."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        with torch.no_grad():
            self.b_enc.fill_(0.01 * random.SystemRandom().random())


class ForgetsItsStep(RightSAE):
    """A ramp that is counted outside the state."""

    steps = 0

    def loss(self, batch: Batch) -> LossOutput:
        self.steps += self.training
        output = super().loss(batch)
        return output._replace(
            terms={n: t * (1 + 1 / self.steps) for n, t in output.terms.items() if self.steps}
        )

    def eval(self) -> ForgetsItsStep:
        self.steps = max(self.steps, 1)
        return super().eval()


class LosesItsGain(RightSAE):
    """Serves with a tensor that it marks as needed for training alone."""

    class Gain(nn.Module):
        training_only = True

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("value", torch.ones(()))

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.gain = self.Gain()

    def after_step(self, step: int) -> None:
        super().after_step(step)
        self.gain.value.fill_(1.5)

    def decode(self, codes: SparseCodes) -> Tensor:
        return super().decode(codes) * self.gain.value


class ReadsWhatItMade(RightSAE):
    """Sets a size by a value of a tensor that it has just made."""

    def __init__(self, config: CoderConfig, shape: CoderShape, parts: Parts) -> None:
        super().__init__(config, shape, parts)
        self.gain = float(torch.ones(2).mean())


class KeepsAFunction(RightSAE):
    """Holds what no other process can be given."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.shift = lambda x: x + 0


class AnyLevel(RightSAE):
    """Takes every level for the whole."""

    def at_level(self, level: int) -> SparseCoder:
        return self


class ReadsFloat32Alone(RightSAE):
    """Passes vectors on in the type that they have."""

    def read(self, x: Tensor) -> Tensor:
        super().read(x)
        return x


class NeedsAnEntry(RightSAE):
    """Divides by the number of entries, and multiplies again."""

    def decode(self, codes: SparseCodes) -> Tensor:
        entries = torch.tensor(codes.values.numel() // max(codes.batch_size, 1))
        return super().decode(codes) * (entries / entries)


class Broadcasts(RightSAE):
    """Takes what fits its mean."""

    def read(self, x: Tensor) -> Tensor:
        return x.float()


class TurnsInPart(RightSAE):
    """Subtracts a vector of the normalised space that it does not name among those that lie there."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.register_buffer("origin", torch.linspace(-1, 1, self.shape.d_in))

    def normalized(self, x: Tensor) -> Tensor:
        return super().normalized(x) - self.origin


class DenseWithoutBias(RightSAE):
    """Leaves the encoder's bias out of its dense form."""

    def dense(self) -> DenseForm:
        form = super().dense()
        return replace(form, b_enc=0 * form.b_enc)


class CannotInitialize(RightSAE):
    """Fails on its first data."""

    def initialize(self, sample: Batch) -> None:
        raise RuntimeError("no data wanted")


class EarlyConfig(CoderConfig):
    """Looks at the number of latents before it is known."""

    @model_validator(mode="after")
    def _few(self) -> EarlyConfig:
        if self.n_latents > 1000:
            raise ValueError("too many latents")
        return self


class SizedEarly(RightSAE):
    """Takes no expansion."""


class RightInParts(RightSAE):
    """Can be trained in parts."""

    splits_latents = True

    def loss(self, batch: Batch) -> LossOutput:
        output = super().loss(batch)
        sizes = kernels.partners().total(output.codes.values.abs().sum()) / len(batch.x)
        return output._replace(terms={**output.terms, "sizes": 0.01 * sizes})


class SumsItsOwnLatents(RightSAE):
    """Says that it can be trained in parts, and adds something up over the latents that are there."""

    splits_latents = True

    def loss(self, batch: Batch) -> LossOutput:
        output = super().loss(batch)
        sizes = output.codes.values.abs().sum() / len(batch.x)
        return output._replace(terms={**output.terms, "sizes": 0.01 * sizes})


def coder(
    cls: type[SparseCoder], kind: str = "sae", config: type[CoderConfig] = RightConfig
) -> ComponentSpec:
    parts = {"sparsity": {"use": "topk"}}
    target = f"{cls.__module__}:{cls.__name__}"
    return ComponentSpec(kind, cls.__name__.lower(), config, target, default_parts=parts)


RIGHT = [
    coder(RightSAE),
    coder(RightTranscoder, "transcoder"),
    coder(RightSkip, "transcoder", SkipConfig),
    coder(DeclaredUnusedBias),
    coder(RightAcross),
    coder(RightInParts),
]
WRONG = [
    (coder(CallsItselfATranscoder), "widths"),
    (coder(SizedEarly, config=EarlyConfig), "sizes"),
    (coder(ForwardHasMore), "forward"),
    (coder(LongIndices), "codes"),
    (coder(LossIsNoScalar), "loss"),
    (coder(ClimbsTheLoss), "learns"),
    (coder(UnusedBias), "gradients"),
    (coder(CountsInEvaluation), "eval-keeps-state"),
    (coder(WrongNorms), "observation"),
    (coder(OneLevelForAll), "observation"),
    (coder(Undetermined), "deterministic"),
    (coder(ForgetsItsStep), "state"),
    (coder(LosesItsGain), "export"),
    (coder(ReadsWhatItMade), "outline"),
    (coder(KeepsAFunction), "pickle"),
    (coder(AnyLevel), "levels"),
    (coder(CannotInitialize), "constructs"),
    (coder(ReadsFloat32Alone), "reads"),
    (coder(NeedsAnEntry), "silent"),
    (coder(Broadcasts), "refuses"),
    (coder(ReadsLaterLayers), "layers"),
    (coder(DenseWithoutBias), "dense"),
    (coder(TurnsInPart), "spaces"),
    (coder(SumsItsOwnLatents), "parts"),
    (coder(DropsInputs, "transcoder", SkipConfig), "refuses"),
    (coder(ForgetsInputs, "transcoder", SkipConfig), "skip"),
]
