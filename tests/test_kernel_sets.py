"""Which compiled operations a process uses: chosen, compared with torch's, recorded."""

from __future__ import annotations

import types

import pytest
import torch
from qsae_quantizers import SteConfig
from qsae_quantizers.ste import Ste

from qsae_core import ComponentConfig, ComponentSpec, kernels
from qsae_core.compose import kernels as active_kernels
from qsae_core.compose.compose import compose_kernel_set
from qsae_core.compose.kernels import activate_kernels
from qsae_core.contracts.codes import SparseCodes
from qsae_core.contracts.kernel_set import KernelSet
from qsae_core.errors import ConfigError
from qsae_core.kernels.packed_rows import PackedRows
from qsae_core.kernels.verification import disagreements
from qsae_core.plugins.records import load_plugins


class Plain(KernelSet):
    """torch's own top_k under another name, and a gather_dot that is off."""

    device = "cpu"
    reason: str | None = None

    def unavailable(self):
        return self.reason

    def operations(self):
        exact = kernels.OPERATIONS["top_k"].torch_implementation
        return {"top_k": exact, "gather_dot": lambda left, right, i, o: torch.zeros(i.numel())}

    def describe(self):
        return {"isa": "none"}


class Absent(Plain):
    reason = "this machine lacks a part"


class Registry(types.SimpleNamespace):
    """What activate_kernels asks a registry."""

    def names(self, kind):
        return sorted(self.sets)

    def get(self, kind, name):
        if name not in self.sets:
            raise ConfigError(f"unknown kernel {name!r}")
        return ComponentSpec("kernel", name, ComponentConfig, f"{__name__}:{name}")

    def load_target(self, spec):
        return self.sets[spec.name]


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    """Each test starts without kernels, and leaves those that were active as they were."""
    monkeypatch.delenv("QSAE_KERNELS", raising=False)
    monkeypatch.setattr(active_kernels, "_activated", {})
    with kernels.torch_only():
        yield
        kernels.uninstall()


def test_auto_uses_what_works_and_names_what_does_not_agree():
    (active,) = activate_kernels("auto", Registry(sets={"plain": Plain, "absent": Absent}))
    assert (active.name, active.device, active.operations) == ("plain", "cpu", ("top_k",))
    assert kernels.installed("top_k", "cpu")
    assert not kernels.installed("gather_dot", "cpu")
    assert str(active).startswith("compiled kernels 'plain' for cpu (isa none); torch's gather_dot instead")


def test_none_uses_none_and_takes_back_what_was_active():
    registry = Registry(sets={"plain": Plain})
    assert activate_kernels("auto", registry)
    assert activate_kernels("none", registry) == ()
    assert not kernels.installed("top_k", "cpu")


def test_the_environment_decides_where_the_run_leaves_it_open(monkeypatch):
    registry = Registry(sets={"plain": Plain, "other": Plain})
    monkeypatch.setenv("QSAE_KERNELS", "other")
    assert [active.name for active in activate_kernels("auto", registry)] == ["other"]
    assert [active.name for active in activate_kernels("plain", registry)] == ["plain"]


def test_a_named_set_that_cannot_be_used_is_an_error_with_its_reason():
    with pytest.raises(ConfigError, match="kernel set 'absent' cannot be used: this machine lacks a part"):
        activate_kernels("absent", Registry(sets={"absent": Absent}))
    with pytest.raises(ConfigError, match="unknown kernel 'nope'"):
        activate_kernels("nope", Registry(sets={}))


def test_two_sets_for_one_device_are_an_error_that_names_both():
    with pytest.raises(ConfigError, match="'one' and 'two' are both for cpu") as caught:
        activate_kernels("auto", Registry(sets={"one": Plain, "two": Plain}))
    assert "--kernels one or --kernels two" in str(caught.value)
    assert not kernels.installed("top_k", "cpu")


def test_what_was_laid_out_by_a_set_is_read_by_it_after_the_set_is_gone():
    torch.manual_seed(0)
    quantizer = Ste(SteConfig(), (300, 32)).eval()
    packed = quantizer.pack(torch.randn(300, 32))
    codes = SparseCodes.from_top_k(torch.tensor([[5, 250]]), torch.tensor([[1.0, -2.0]]), 300)
    x, W = torch.randn(4, 32), torch.randn(300, 32)
    reversing = {
        "lookup_pack": lambda codes, bits: codes.flip(0).contiguous(),
        "lookup_product": lambda words, *a: kernels.OPERATIONS["lookup_product"].torch_implementation(
            words.flip(0), *a
        ),
        "lookup_gather_dot": lambda words, *a: kernels.OPERATIONS["lookup_gather_dot"].torch_implementation(
            words.flip(0), *a
        ),
        "screen_prepare": lambda W: (W,),
        "screen": lambda prepared, x, bias, weights, m: (x @ prepared[0].T).topk(m).indices.int(),
    }
    kernels.install("cpu", reversing)
    rows, screen = PackedRows(packed, quantizer, "exact"), kernels.Screen("int8", W)
    expected = quantizer.unpack(packed)[[5, 250]]
    kernels.uninstall()
    torch.testing.assert_close(rows.product(codes, codes.values), expected[:1] - 2 * expected[1:])
    torch.testing.assert_close(
        screen.candidates(x, torch.zeros(300), None, 3), (x @ W.T).topk(3).indices.int()
    )


def test_sets_are_compared_once_for_a_process(monkeypatch):
    calls = []
    whole = active_kernels.disagreements
    monkeypatch.setattr(active_kernels, "disagreements", lambda *a: calls.append(a) or whole(*a))
    registry = Registry(sets={"plain": Plain})
    assert activate_kernels("auto", registry) == activate_kernels("auto", registry)
    assert len(calls) == 1


def test_operations_agree_whatever_the_default_type_of_the_process_is():
    registry = load_plugins().registry
    names = [
        name for name in registry.names("kernel") if compose_kernel_set(name, registry).unavailable() is None
    ]
    if not names:
        pytest.skip("no kernel set can be used here")
    torch.set_default_dtype(torch.bfloat16)
    try:
        for name in names:
            kernel_set = compose_kernel_set(name, registry)
            assert disagreements(kernel_set.operations(), kernel_set.device) == {}
    finally:
        torch.set_default_dtype(torch.float32)
