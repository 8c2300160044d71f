"""Rules for SAEs and transcoders: what they are given when they serve. Shapes: B tokens, D width."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from qsae_core.conformance.cases import Case
from qsae_core.conformance.check import Rules
from qsae_core.conformance.coder import trained
from qsae_core.conformance.coder_samples import Variant, built
from qsae_core.conformance.subject import Subject
from qsae_core.conformance.verdicts import CheckFailure, expect, expect_close, expect_equal, expect_finite
from qsae_core.contracts.codes import SparseCodes, concatenate
from qsae_core.errors import QsaeError

RULES = Rules()
FLOATS = (torch.float16, torch.bfloat16, torch.float64)


@RULES.each_case("reads", "vectors of every float type are read as float32, and there may be none of them.")
def _reads(subject: Subject, case: Case) -> None:
    coder, batch = trained(subject, case, built(subject, Variant(case, {})))
    with torch.no_grad():
        for dtype in FLOATS:
            x = batch.x.to(dtype)
            read, wanted = coder.encode(x).to_dense(), coder.encode(x.float()).to_dense()
            expect_equal(read, wanted, f"codes of vectors of {dtype} against float32")
        none = coder.decode(coder.encode(batch.x[:0]))
    expect(len(none) == 0, f"no vectors become {list(none.shape)}.")


@RULES.each_case("silent", "codes without an entry decode to finite vectors, the same for every token.")
def _silent(subject: Subject, case: Case) -> None:
    coder, batch = trained(subject, case, built(subject, Variant(case, {})))
    with torch.no_grad():
        codes = coder.encode(batch.x)
    same = None if codes.inputs is None else codes.inputs[:1].expand_as(codes.inputs)  # for a skip connection
    none = torch.zeros_like(codes.offsets)
    empty = SparseCodes(codes.indices[:0], codes.values[:0], none, codes.n_latents, inputs=same)
    with torch.no_grad():
        found = coder.decode(empty)
    expect_finite(found, "the reconstruction of codes without an entry")
    expect_close(found, found[:1].expand_as(found), "tokens without an active latent")


@RULES.each_case("refuses", "what is no batch of its vectors, or no codes of its latents, is a QsaeError.")
def _refuses(subject: Subject, case: Case) -> None:
    coder, batch = trained(subject, case, built(subject, Variant(case, {})))
    for what, x in _no_vectors(batch.x):
        _expect_refusal(lambda x=x: coder.encode(x), f"encode took {what}")  # type: ignore[misc]
    with torch.no_grad():
        codes = coder.encode(batch.x)
    more = replace(codes, n_latents=codes.n_latents + 1)
    _expect_refusal(lambda: coder.decode(more), "decode took codes of one latent more")
    if coder.has_skip:
        _expect_refusal(lambda: coder.decode(replace(codes, inputs=None)), "decode took codes without inputs")
    behind = replace(codes, indices=torch.full_like(codes.indices, codes.n_latents))
    if behind.indices.numel():
        _expect_refusal(lambda: coder.decode(behind), f"decode took latent {codes.n_latents}")


@RULES.each_case("skip", "codes keep what was encoded where has_skip, cut and joined too; else nothing.")
def _skip(subject: Subject, case: Case) -> None:
    coder, batch = trained(subject, case, built(subject, Variant(case, {})))
    with torch.no_grad():
        codes = coder.encode(batch.x)
        whole = coder.decode(codes)
        expect((codes.inputs is not None) == coder.has_skip, f"has_skip is {coder.has_skip}; see its codes.")
        joined = concatenate([coder.encode(part) for part in batch.x.split(50)])
        for what, some in (("the first 7 codes", codes.first(7)), ("codes of parts, joined", joined)):
            expect_close(coder.decode(some), whole[: some.batch_size], what)
        if coder.has_skip:
            other = coder.decode(replace(codes, inputs=batch.x.flip(0)))
            expect(not torch.equal(other, whole), "decode does not use the inputs of the codes.")


@RULES.each_case(
    "layers", "reconstruct_layer has each layer of forward, from the layers of layers_read alone."
)
def _layers(subject: Subject, case: Case) -> None:
    coder, batch = trained(subject, case, built(subject, Variant(case, {})))
    if coder.chooses_layer:
        return
    with torch.no_grad():
        whole = coder(batch.x)
        for layer in range(coder.shape.layers_out):
            read = list(coder.layers_read(layer))
            known = sorted(set(read) & set(range(coder.shape.layers_in)))
            expect(read == known, f"layers_read({layer}) is {read}, of {coder.shape.layers_in} layers.")
            x = batch.x[:, read] if coder.reads_layers else batch.x
            own = whole[:, layer] if coder.shape.layers_out > 1 else whole
            expect_close(coder.reconstruct_layer(x, layer), own, f"layer {layer} of what forward gives")


def _no_vectors(x: Tensor) -> Iterator[tuple[str, Tensor]]:
    shape = list(x.shape)
    yield f"one vector {shape[1:]}", x[0]
    yield f"batches of batches {[1, *shape]}", x[None]
    for width in (1, shape[-1] - 1):
        yield f"vectors {[*shape[:-1], width]} instead of {shape}", x[..., :width]
    if x.dim() > 2:
        yield f"one layer {[shape[0], 1, *shape[2:]]} instead of {shape}", x[:, :1]
    yield "integers", x.long()
    for number in (float("nan"), float("inf")):
        broken = x.clone()
        broken[-1, ..., 0] = number
        yield f"a vector with {number}", broken


def _expect_refusal(call: Callable[[], object], what: str) -> None:
    try:
        call()
    except QsaeError:
        return
    except Exception as error:
        raise CheckFailure(f"{what}: {type(error).__name__} instead of a QsaeError.") from error
    raise CheckFailure(f"{what}.")
