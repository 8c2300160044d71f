"""Run where circuit-tracer and qsae are: ``python in_circuit_tracer.py FOLDER MODEL``.

FOLDER/served/CASE/stored has the coders of all layers of MODEL and, where circuit-tracer has such transcoders
in floats, FOLDER/served/CASE/floats the same coders exported. FOLDER/refused/CASE/stored is refused with what
FOLDER/refused/CASE/says says. What is wrong is an AssertionError.
"""

from __future__ import annotations

import contextlib
import pathlib
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from circuit_tracer import ReplacementModel, attribute
from circuit_tracer.transcoder.cross_layer_transcoder import CrossLayerTranscoder
from circuit_tracer.transcoder.single_layer_transcoder import TranscoderSet
from circuit_tracer.utils.caching import load_transcoders_from_cache
from qsae_in_circuit_tracer import packed_transcoders
from torch import Tensor
from transformer_lens import HookedTransformerConfig

import qsae_core
from qsae_core.coders import CoderSet
from qsae_core.errors import QsaeError

TOKENS = torch.tensor([0, 305, 417, 12, 90, 211])
"""The first is the model's beginning of a text: circuit-tracer puts one there where it is not 0."""
CPU = torch.device("cpu")
INTERVENTIONS = [(1, 3, 5, 2.0), (2, 4, 7, 1.0)]
"""Layer, position, latent and its value."""


def close(a: Tensor, b: Tensor, what: str) -> None:
    """Within a few float32 roundings of numbers of b's size."""
    a, b = (t.to_dense() if t.is_sparse else t for t in (a, b))
    assert a.shape == b.shape, f"{what}: {tuple(a.shape)} and {tuple(b.shape)}"
    if a.dtype in (torch.int64, torch.int32):
        assert torch.equal(a, b), what
        return
    most = 1e-5 * max(1.0, b.abs().max().item())
    off = (a - b).abs().max().item()
    assert off <= most, f"{what}: off by {off}, and {most} is allowed"


@contextlib.contextmanager
def refused(kind: type[Exception], what: str) -> Iterator[None]:
    """Fail unless the block raises this, and says so."""
    caught = None
    try:
        yield
    except kind as error:
        caught = error
    assert caught is not None, f"it was not refused: {what}"
    assert what in str(caught), caught


def vectors(coder: Any) -> Tensor:
    """``[L, B, D]`` like those that the coders were trained on."""
    norms = [c.norm_in for c in coder.by_layer()] if isinstance(coder, CoderSet) else [coder.norm_in]
    mean_LD = torch.cat([norm.mean.view(-1, coder.shape.d_in) for norm in norms])
    scale_L = torch.cat([norm.scale.view(-1) for norm in norms])
    noise = torch.randn(len(mean_LD), 32, coder.shape.d_in, generator=torch.Generator().manual_seed(0))
    return noise * scale_L[:, None, None] + mean_LD[:, None]


def check_latents(own: Any, coder: Any, x: Tensor) -> None:
    """Latents and reconstructions are those of qsae; of a set bit for bit."""
    codes = coder.encode(x.transpose(0, 1).contiguous())
    latents = codes.to_dense().unflatten(1, (len(x), -1)).transpose(0, 1)
    decoded = coder.decode(codes).transpose(0, 1)
    found = own.encode(x), own.decode(own.encode(x), x)
    if isinstance(own, TranscoderSet):
        assert torch.equal(found[0], latents), "encode"
        assert torch.equal(found[1], decoded), "decode"
    close(found[0], latents, "encode")
    close(found[1], decoded, "decode")
    for layer in range(len(x)):  # the rule alone, of pre-activations
        pre = own.encode_layer(x[layer], layer, apply_activation_function=False)
        close(own.apply_activation_function(layer, pre[None])[0], latents[layer], "activation")


def check_same(own: Any, theirs: Any, x: Tensor) -> None:
    """What circuit-tracer asks of transcoders is what its own have."""
    assert isinstance(own, type(theirs))
    for name in ("feature_input_hook", "feature_output_hook", "skip_connection", "d_transcoder", "n_layers"):
        assert getattr(own, name) == getattr(theirs, name), name
    close(own.encode(x), theirs.encode(x), "encode")
    acts = theirs.encode(x)
    close(own.decode(acts, x), theirs.decode(acts, x), "decode")
    for positions in (slice(0, 1), slice(0, 4)):
        found, wanted = (t.compute_attribution_components(x, positions) for t in (own, theirs))
        assert found.keys() == wanted.keys()
        for name in wanted:
            close(found[name], wanted[name], name)
    for vectors_of, wanted in zip(
        own.select_decoder_vectors(acts), theirs.select_decoder_vectors(acts), strict=True
    ):
        close(vectors_of, wanted, "select_decoder_vectors")
    for layer in range(len(x)):
        for apply in (True, False):
            found, wanted = (t.encode_layer(x[layer][None], layer, apply) for t in (own, theirs))
            close(found, wanted, f"encode_layer {layer} {apply}")
        if own.skip_connection:
            close(own.compute_skip(layer, x[layer]), theirs.compute_skip(layer, x[layer]), "compute_skip")
    if isinstance(own, TranscoderSet):
        for a, b in zip(own, theirs, strict=True):
            for name in ("W_enc", "W_dec", "b_enc", "b_dec"):
                close(getattr(a, name), getattr(b, name), name)
            for found, wanted in zip(a.encode_sparse(x[0]), b.encode_sparse(x[0]), strict=True):
                close(found, wanted, "encode_sparse")


def replaced(model: str, transcoders: Any, dtype: torch.dtype = torch.float32) -> Any:
    return ReplacementModel.from_pretrained_and_transcoders(
        model, transcoders, backend="nnsight", device=CPU, dtype=dtype
    )


def computed(replacement: Any) -> dict[str, Tensor]:
    """Everything that a ReplacementModel is used for."""
    found = {}
    found["logits"], found["latents"] = replacement.get_activations(TOKENS)
    _, found["pre-activations"] = replacement.get_activations(TOKENS, apply_activation_function=False)
    graph = attribute(TOKENS, replacement, max_n_logits=2, batch_size=64)
    found["adjacency"] = torch.as_tensor(graph.adjacency_matrix)
    found["active"], found["values"] = graph.active_features, graph.activation_values
    for offload in ("cpu", "disk"):
        again = attribute(TOKENS, replacement, max_n_logits=2, batch_size=64, offload=offload)
        found[f"adjacency, offloaded to {offload}"] = torch.as_tensor(again.adjacency_matrix)
    part = attribute(TOKENS, replacement, max_n_logits=2, batch_size=16, max_feature_nodes=32)
    found["adjacency of 32"] = torch.as_tensor(part.adjacency_matrix)
    ways: list[dict[str, Any]] = [{}, {"constrained_layers": range(5)}, {"apply_activation_function": False}]
    for way in ways:
        logits, latents = replacement.feature_intervention(TOKENS, INTERVENTIONS, **way)
        found |= {f"logits {way}": logits, f"latents {way}": latents}
    return found


def check_in_a_model(own: Any, model: str, theirs: Any) -> None:
    """Logits, latents, the whole graph and interventions."""
    found = computed(replaced(model, own))
    assert len(found["active"]), "no latent is active"
    close(found["adjacency, offloaded to disk"], found["adjacency"], "offloaded")
    if theirs is None:
        return
    for name, wanted in computed(replaced(model, theirs)).items():
        close(found[name], wanted, name)
    latents = found["latents"]
    assert not torch.equal(found["logits {}"], found["logits"]), "interventions that do nothing"
    assert len(found["active"]) == int((latents != 0).sum())


def check_in_transformer_lens(own: Any, theirs: Any) -> None:
    """The other backend, whose latents are computed in inference mode, and then outside of it."""
    shape = {"n_layers": 5, "d_model": own[0].d_model, "n_ctx": 16, "d_head": 32, "d_vocab": 50}
    config = HookedTransformerConfig(**shape, act_fn="gelu", normalization_type="LNPre", seed=0)
    tokens, rows = torch.arange(8), []
    for transcoders in (own, theirs):
        transcoders.feature_input_hook = "hook_resid_mid"
        model = ReplacementModel.from_config(config, transcoders, backend="transformerlens")
        latents = model.get_activations(tokens)[1]
        context = model.setup_attribution(tokens)
        model.run_forward_pass(tokens[None], 4, context)
        layers, positions, _ = context.activation_matrix.indices()[:, -4:]
        rows.append((latents, context.compute_batch(layers, positions, context.encoder_vecs[-4:])))
    for found, wanted in zip(*rows, strict=True):
        assert wanted.any()
        close(found, wanted, "in TransformerLens")


def check_packed(own: Any, folder: pathlib.Path) -> None:
    """Casts change no packed weight, and nothing but biases and skip connections is a parameter."""
    members = list(own) if isinstance(own, TranscoderSet) else [own]
    before = [{name: m.pack().tensors for name, m in one.coder.matrices().items()} for one in members]
    own.to(torch.bfloat16)
    for one, kept in zip(members, before, strict=True):
        assert {name.rpartition(".")[2] for name in one.state_dict()} <= {"b_enc", "b_dec", "W_skip"}
        assert one.dtype == torch.bfloat16
        for name, matrix in one.coder.matrices().items():
            for part, tensor in matrix.pack().tensors.items():
                assert torch.equal(tensor, kept[name][part])
    again = packed_transcoders(folder, device="cpu", dtype=torch.bfloat16)
    width = members[0].d_model
    assert again.encode_layer(torch.zeros(2, width, dtype=torch.bfloat16), 0).dtype == torch.bfloat16
    with refused(NotImplementedError, "qsae export RUN --format circuit-tracer"):
        own.to_safetensors(str(folder / "again"))


def check_hooks(folder: pathlib.Path) -> None:
    """Hooks that are given are taken, beside the one that is known."""
    own = packed_transcoders(folder, "cpu", feature_input_hook="hook_resid_mid", scan="a-scan")
    assert (own.feature_input_hook, own.feature_output_hook) == ("hook_resid_mid", "hook_mlp_out")
    assert own.scan == "a-scan"


def check_refused(case: pathlib.Path) -> None:
    with refused(QsaeError, (case / "says").read_text()):
        packed_transcoders(case / "stored", device=CPU)


def check_served(case: pathlib.Path, model: str) -> str:
    """Everything about one case; the class that serves it."""
    stored, floats = case / "stored", case / "floats"
    layered = (stored / "coders.json").exists()
    coder = qsae_core.load_set(stored) if layered else qsae_core.load(stored)
    own = packed_transcoders(stored, device=CPU)
    assert isinstance(own, TranscoderSet if layered else CrossLayerTranscoder)
    theirs = None
    if floats.exists():
        theirs, _ = load_transcoders_from_cache(str(floats), device=CPU, dtype=torch.float32)
    x = vectors(coder)
    with torch.no_grad():
        check_latents(own, coder, x)
        if theirs is not None:
            check_same(own, theirs, x)
    check_in_a_model(own, model, theirs)
    if isinstance(own, TranscoderSet) and theirs is not None:
        check_in_transformer_lens(own, theirs)
    check_packed(own, stored)
    check_hooks(stored)
    return type(own).__name__


def main(cases: pathlib.Path, model: str) -> None:
    warnings.simplefilter("ignore")
    for case in sorted((cases / "served").iterdir()):
        print(f"{case.name}: {check_served(case, model)}")
    for case in sorted((cases / "refused").iterdir()):
        check_refused(case)
        print(f"{case.name}: refused")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), sys.argv[2])
