"""Formats that are a mapping of names, and what core makes of a checkpoint, by hand."""

from __future__ import annotations

import dataclasses
import json
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file

import qsae_core
from qsae_core import ComponentConfig, ComponentSpec
from qsae_core.artifact import checkpoints
from qsae_core.artifact.checkpoints import format_of, open_checkpoint
from qsae_core.artifact.composed import compose_checkpoint
from qsae_core.artifact.imported import import_checkpoint
from qsae_core.contracts import ActivationWord, Checkpoint, DenseForm, NamedTensors
from qsae_core.errors import ArtifactError, ConfigError, PluginError
from qsae_core.plugins.records import load_plugins
from qsae_core.registry import Provider, Registry


class TheirConfig(ComponentConfig):
    """No options."""


class Theirs(NamedTensors):
    """Encoder the other way round, and b_dec subtracted."""

    settings_file, tensors_file = "cfg.json", "w.safetensors"
    names: ClassVar = {
        "W_enc": "encoder",
        "b_enc": "bias",
        "W_dec": "decoder",
        "b_dec": "offset",
        "threshold": "t",
    }
    transposed = frozenset({"W_enc"})
    subtracts_b_dec = True
    activation_key, k_key = "act", "top"
    words: ClassVar = {
        "relu": ActivationWord("relu"),
        "topk": ActivationWord("relu", has_k=True),
        "jump": ActivationWord("jumprelu"),
    }


class Others(Theirs):
    """The same files."""


TENSORS = {
    "encoder": torch.tensor([[1.0, 2.0], [0.0, 1.0]]),  # [d_in, F]
    "bias": torch.tensor([0.25, 0.0]),
    "decoder": torch.tensor([[1.0, 0.0], [0.0, 3.0]]),
    "offset": torch.tensor([1.0, -1.0]),
}
FORMAT = Theirs(TheirConfig())
RANDOM = torch.Generator().manual_seed(0)
FORM = DenseForm(
    *(torch.randn(size, generator=RANDOM) for size in ((8, 4), (8,), (8, 4), (4,))), activation="relu", k=2
)
THRESHOLD = torch.linspace(0.5, 1, 8)


@pytest.fixture
def path(tmp_path):
    return written(tmp_path / "theirs")


@pytest.fixture
def registry():
    return load_plugins().registry


def written(folder, tensors=TENSORS, **settings):
    folder.mkdir()
    save_file(tensors, folder / "w.safetensors")
    (folder / "cfg.json").write_text(json.dumps({"act": "relu", "layer": 3, **settings}))
    return folder


def formats(*classes):
    installed = Registry()
    specs = [
        ComponentSpec("format", c.__name__.lower(), TheirConfig, f"{__name__}:{c.__name__}") for c in classes
    ]
    installed.add(Provider("acme", "1"), specs)
    return installed


def test_read_by_hand(path):
    read = FORMAT.read(path)
    assert (read.dense.b_enc.tolist(), read.dense.subtracts_b_dec) == ([0.25, 0.0], True)
    # W_enc x + b_enc of x = 0 is W_enc (0 - offset) + bias: rows (1, 0) and (2, 1) of (-1, 1)
    assert read.dense.plain().b_enc.tolist() == [-1 + 0.25, -2 + 1]
    assert read.dense.W_enc.tolist() == [[1.0, 0.0], [2.0, 1.0]]
    assert (read.kind, read.settings) == ("sae", {"act": "relu", "layer": 3})
    assert [file.name for file in read.files] == ["cfg.json", "w.safetensors"]
    assert FORMAT.recognizes(path)


def test_written_by_hand(tmp_path):
    form = DenseForm(
        torch.tensor([[1.0, 2.0]]), torch.tensor([0.5]), torch.ones(1, 2), torch.tensor([1.0, 3.0]), k=1
    )
    FORMAT.write(Checkpoint(form, settings={"layer": 3}), tmp_path / "new")
    tensors = load_file(tmp_path / "new" / "w.safetensors")
    assert tensors["encoder"].tolist() == [[1.0], [2.0]]
    assert tensors["bias"].tolist() == [0.5 + 1 + 6]  # b_enc + W_enc b_dec
    assert json.loads((tmp_path / "new" / "cfg.json").read_text()) == {"layer": 3, "act": "topk", "top": 1}


@pytest.mark.parametrize(
    ("settings", "dropped", "fault"),
    [
        ({}, "decoder", "there is no tensor decoder"),
        ({"act": "gelu"}, None, "act is 'gelu', which is not read here"),
        ({"act": "topk"}, None, "top is None, not a whole number"),
        ({"act": "topk", "top": True}, None, "top is True"),
        ({"act": "topk", "top": 3}, None, "k is 3, with 2 latents"),
        ({"act": "jump"}, None, "jumprelu without threshold"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(tmp_path, settings, dropped, fault):
    tensors = {name: tensor for name, tensor in TENSORS.items() if name != dropped}
    with pytest.raises(ArtifactError, match=fault) as caught:
        FORMAT.read(written(tmp_path / "x", tensors, **settings))
    assert str(tmp_path / "x") in caught.value.where


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"activation": "identity"}, "activation identity and the 2 largest latents"),
        ({"ranks_by_norm": True}, "activation relu and the 2 largest latents by norm"),
        ({"W_skip": torch.zeros(4, 4)}, "no place for a coder with W_skip"),
        (
            {"W_dec": torch.zeros(8, 3), "b_dec": torch.zeros(3)},
            "cannot be subtracted from inputs of another width",
        ),
    ],
)
def test_a_variant_without_a_word_is_refused_and_nothing_written(tmp_path, change, fault):
    with pytest.raises(ArtifactError, match=fault):
        FORMAT.write(Checkpoint(dataclasses.replace(FORM, **change)), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_format_of_a_path_is_the_one_that_recognizes_it(path, tmp_path):
    assert format_of(path, formats(Theirs)) == "theirs"
    with pytest.raises(ArtifactError, match="of several formats: others, theirs") as caught:
        format_of(path, formats(Theirs, Others))
    assert caught.value.next == "--format others"
    with pytest.raises(ArtifactError, match="of none of the installed formats"):
        format_of(tmp_path, formats(Theirs))
    with pytest.raises(ArtifactError, match="but its folder is of theirs") as caught:
        format_of(path / "w.safetensors", formats(Theirs))
    assert caught.value.next == f"give the folder: {path}"
    with pytest.raises(ArtifactError, match="there is no such file or folder"):
        format_of(tmp_path / "nothing", formats(Theirs))
    with pytest.raises(ArtifactError, match="none of the installed") as caught:
        format_of(path, formats())
    assert caught.value.allowed == "none, because no plugin with a format is installed"


def test_a_format_that_cannot_be_loaded_is_in_the_way_of_no_other(path, tmp_path):
    registry = formats(Theirs)
    broken = ComponentSpec("format", "broken", TheirConfig, "no_such_module_at_all:Format")
    registry.add(Provider("acme-broken", "1"), [broken])
    assert format_of(path, registry) == "theirs"
    with pytest.raises(ArtifactError, match="of none of the installed formats") as caught:
        format_of(tmp_path, registry)
    assert "broken cannot be used: " in caught.value.allowed
    assert "No module named 'no_such_module_at_all'" in caught.value.allowed


class SaysTooMuch(Theirs):
    """Chooses a quantizer."""

    def read(self, path):
        return dataclasses.replace(super().read(path), components={"quantizer": {"use": "ste"}})


class HoldsNoJson(Theirs):
    """Has a path in its settings."""

    def read(self, path):
        return dataclasses.replace(super().read(path), settings={"path": path})


@pytest.mark.parametrize(
    ("cls", "fault"),
    [(SaysTooMuch, "chooses a component for 'quantizer'"), (HoldsNoJson, "its settings are not JSON")],
)
def test_what_a_format_may_not_say_is_refused(path, cls, fault):
    with pytest.raises(ArtifactError, match=fault):
        open_checkpoint(path, formats(cls), cls.__name__.lower())


@pytest.mark.parametrize(
    ("change", "used"),
    [
        ({}, ("topk", "relu", "topk")),
        ({"k": None}, ("vanilla", "relu", "none")),
        ({"ranks_by_norm": True}, ("vanilla", "relu", "topk")),
        ({"activation": "identity"}, ("topk", "identity", "topk")),
        ({"activation": "jumprelu", "threshold": THRESHOLD, "k": None}, ("jumprelu", "jumprelu", "none")),
        ({"activation": "jumprelu", "threshold": THRESHOLD}, ("topk", "jumprelu", "topk")),
    ],
)
def test_a_checkpoint_is_composed_of_what_is_installed(registry, change, used):
    form = dataclasses.replace(FORM, **change)
    coder = compose_checkpoint(Checkpoint(form), registry, "some.file")
    names = (coder.component_name, coder.activation.component_name, coder.sparsity.component_name)
    assert names == used
    x = 3 * torch.randn(200, 4, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(coder.encode(x).to_dense(), form.encode(x), rtol=1e-5, atol=1e-5)
    assert torch.allclose(coder(x), form.reconstruct(x), rtol=1e-5, atol=1e-5)
    assert torch.equal(coder.dictionary(), form.W_dec)
    assert not coder.training


@pytest.mark.parametrize(
    ("change", "components", "fault"),
    [
        ({"W_skip": torch.ones(4, 4)}, {}, "it has W_skip, which the coder has no place for"),
        ({"activation": "jumprelu", "threshold": THRESHOLD - 1}, {}, "threshold differs by up to 0.5"),
        ({}, {"sparsity": {"use": "groupmax", "k": 2}}, "other libraries have no sparsity rule 'groupmax'"),
        ({}, {"sparsity": {"use": "topk", "k": 3}}, "k is 2, and the coder's is 3"),
        ({}, {"activation": {"use": "identity"}}, "activation is relu, and the coder's is identity"),
        ({"k": 2}, {"sae": {"use": "vanilla"}}, "ranks_by_norm is False, and the coder's is True"),
        ({}, {"sae": {"use": "crosscoder"}}, "reads several layers"),
        ({}, {"sae": {"use": "topk", "nonsense": 1}}, "nonsense"),
    ],
)
def test_what_cannot_be_had_exactly_is_refused(registry, change, components, fault):
    checkpoint = Checkpoint(dataclasses.replace(FORM, **change), components=components)
    with pytest.raises(ArtifactError, match=fault):
        compose_checkpoint(checkpoint, registry, "some.file")


def test_the_file_s_own_components_are_taken(registry):
    components = {"sae": {"use": "baseline"}, "sparsity": {"use": "topk", "k": 2}}
    coder = compose_checkpoint(Checkpoint(FORM, components=components), registry, "some.file")
    assert coder.component_name == "baseline"
    assert torch.equal(coder.b_enc, FORM.b_enc)  # nothing is subtracted, so nothing is rounded


def test_what_is_not_installed_is_named():
    with pytest.raises(PluginError, match="takes quantizer 'none', which is not installed") as caught:
        compose_checkpoint(Checkpoint(FORM), formats(Theirs), "some.file")
    assert "qsae-quantizer-none" in caught.value.next


def test_a_transcoder_needs_one_that_is_installed(monkeypatch):
    checkpoint, installed = Checkpoint(FORM, kind="transcoder"), load_plugins().registry
    coder = compose_checkpoint(checkpoint, installed, "some.file")
    assert coder.component_name == "transcoder"
    assert torch.allclose(coder.dense().W_enc, FORM.W_enc)
    names = installed.names
    monkeypatch.setattr(installed, "names", lambda kind: [] if kind == "transcoder" else names(kind))
    with pytest.raises(PluginError, match="takes transcoder 'transcoder', which is not installed"):
        compose_checkpoint(checkpoint, installed, "some.file")


def test_nothing_is_written_over(path, tmp_path, registry):
    (tmp_path / "taken").mkdir()
    with pytest.raises(ConfigError, match="something of that name already"):
        import_checkpoint(path, tmp_path / "taken", registry, message=print)
    with pytest.raises(PluginError, match="'theirs'"):
        qsae_core.read_checkpoint(path, format="theirs", registry=registry)


def test_a_format_is_told_what_the_coder_is_made_of(tmp_path, path, registry, monkeypatch):
    class Keeps(Theirs):
        def write(self, checkpoint, path):
            self.given = checkpoint

    keeps = Keeps(TheirConfig())
    monkeypatch.setattr(checkpoints, "compose_format", lambda name, registry, options=None: keeps)
    import_checkpoint(path, tmp_path / "stored", registry, format="theirs", message=lambda text: None)
    with pytest.raises(ConfigError, match="has written nothing"):
        checkpoints.export_checkpoint(tmp_path / "stored", tmp_path / "out", "theirs", registry)
    slots = keeps.given.components
    assert (slots["sae"]["use"], slots["activation"], slots["sparsity"]["use"]) == (
        "vanilla",
        {"use": "relu"},
        "none",
    )
    assert "data" not in slots
    assert keeps.given.run == tmp_path / "stored"  # it is in no run
    run = tmp_path / "results" / "mine" / "2" / "60"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.json").write_text("{}")
    (tmp_path / "stored").rename(run / "checkpoints" / "final")
    for place in (run, run / "checkpoints" / "final"):
        with pytest.raises(ConfigError, match="has written nothing"):
            checkpoints.export_checkpoint(place, tmp_path / "out", "theirs", registry)
        assert keeps.given.run == run


def test_what_a_format_refuses_is_called_as_the_user_does(tmp_path, path, registry, monkeypatch):
    class Refuses(Theirs):
        def write(self, checkpoint, path):
            raise ArtifactError(
                f"{path.name} has no place for it", where=f"{path}: cfg.json", next=f"rm {path}"
            )

    refuses = Refuses(TheirConfig())
    monkeypatch.setattr(checkpoints, "compose_format", lambda name, registry, options=None: refuses)
    import_checkpoint(path, tmp_path / "stored", registry, format="theirs", message=lambda text: None)
    out = tmp_path / "out"
    with pytest.raises(ArtifactError) as caught:  # and not by the name that the folder has meanwhile
        checkpoints.export_checkpoint(tmp_path / "stored", out, "theirs", registry)
    assert str(caught.value) == f"{out}: cfg.json: out has no place for it\n  next:    rm {out}"
    assert not out.exists()


def test_a_type_that_does_not_hold_every_value_is_refused():
    large = dataclasses.replace(FORM, W_enc=FORM.W_enc * 1e6)
    with pytest.raises(ConfigError, match="W_enc has values that float16 does not hold") as caught:
        checkpoints.in_types(large, "float16")
    assert caught.value.where == "--dtype"
    assert checkpoints.in_types(large, "bfloat16").W_enc.dtype == torch.bfloat16


def test_everybody_may_read_what_is_written_who_may_read_any_new_file(tmp_path, path, registry, monkeypatch):
    monkeypatch.setattr(checkpoints, "compose_format", lambda name, registry, options=None: FORMAT)
    import_checkpoint(path, tmp_path / "stored", registry, format="theirs", message=lambda text: None)
    checkpoints.export_checkpoint(tmp_path / "stored", tmp_path / "a" / "out", "theirs", registry)
    (tmp_path / "any").touch()  # safetensors' own files are their owner's alone
    modes = {file.name: file.stat().st_mode for file in (tmp_path / "a" / "out").iterdir()}
    assert modes == dict.fromkeys(("cfg.json", "w.safetensors"), (tmp_path / "any").stat().st_mode)
    with pytest.raises(ConfigError, match="something of that name"):
        checkpoints.export_checkpoint(tmp_path / "stored", tmp_path / "a" / "out", "theirs", registry)
