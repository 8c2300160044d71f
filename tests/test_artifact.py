"""Artifacts from strangers are data: what is truncated, altered or not installable is refused by name."""

import json

import numpy as np
import pytest
import torch
from qsae_bench.inference_speed import sample_inputs, untrained
from safetensors.torch import load_file, save_file

import qsae_core
from qsae_core.artifact import artifact, places
from qsae_core.artifact import description as coder_json
from qsae_core.compose.kernels import activate_kernels
from qsae_core.config.layers import Layer
from qsae_core.config.run import resolve
from qsae_core.errors import ArtifactError, PluginError
from qsae_core.plugins.records import load_plugins
from tests.test_training_run import configuration, run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(1)
    np.save(folder / "states.npy", rng.normal(size=(4096, 20)).astype(np.float32))
    return run(configuration(folder / "states.npy", train={"steps": 6}))


@pytest.fixture
def final(trained, tmp_path):
    """A copy that a test may damage."""
    folder = tmp_path / "final"
    folder.mkdir()
    for file in trained.final.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_every_path_that_a_user_would_give_finds_the_coder(trained):
    for path in (
        trained.path,
        trained.final,
        trained.final / "coder.json",
        trained.final / "coder.safetensors",
    ):
        assert qsae_core.load(path).n_latents == 96


def test_a_run_s_name_alone_is_refused_with_the_folder_that_is_meant(trained):
    name = trained.path.parent.parent
    with pytest.raises(ArtifactError, match="holds no trained coder") as caught:
        qsae_core.load(name)
    assert f"give {trained.path}" in str(caught.value)


def test_ternary_decoders_take_trits_and_float16_scales(trained):
    tensors = load_file(trained.final / places.TENSORS)
    # 20 trits in 4 bytes, 96 rows
    assert tensors["W_dec.codes"].dtype == torch.uint8
    assert tensors["W_dec.codes"].numel() == 96 * 4
    assert tensors["W_dec.scales"].dtype == torch.float16
    bits = artifact.measurements(qsae_core.load(trained.path), trained.final)["bits_per_weight"]["W_dec"]
    assert bits == pytest.approx((96 * 4 * 8 + 96 * 16) / (96 * 20))


def test_counters_and_moments_stay_out_of_the_artifact(trained):
    assert not [n for n in load_file(trained.final / places.TENSORS) if "dead" in n or "adam" in n]


def test_a_truncated_file_is_refused_by_name(final):
    file = final / places.TENSORS
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match="truncated") as caught:
        qsae_core.load(final)
    assert "coder.safetensors" in str(caught.value)


@pytest.mark.parametrize("place", [0.3, 0.9])
def test_one_altered_byte_is_refused(final, place):
    file = final / places.TENSORS
    raw = bytearray(file.read_bytes())
    header = 8 + int.from_bytes(raw[:8], "little")
    raw[header + int(place * (len(raw) - header))] ^= 1
    file.write_bytes(bytes(raw))
    with pytest.raises(ArtifactError, match="was altered"):
        qsae_core.load(final)


def test_an_altered_description_is_refused(final):
    file = final / coder_json.DESCRIPTION
    file.write_text(file.read_text().replace('"k": 4', '"k": 5'))
    with pytest.raises(ArtifactError, match="was altered"):
        qsae_core.load(final)


def test_a_file_without_our_checksum_is_refused(final):
    tensors = load_file(final / places.TENSORS)
    save_file(tensors, final / places.TENSORS)
    with pytest.raises(ArtifactError, match="no checksum"):
        qsae_core.load(final)


def test_a_later_format_and_other_json_are_refused(final):
    file = final / coder_json.DESCRIPTION
    description = json.loads(file.read_text())
    file.write_text(json.dumps(description | {"format_version": 99}))
    with pytest.raises(ArtifactError, match="format version 99"):
        qsae_core.load(final)
    file.write_text("[1, 2]")
    with pytest.raises(ArtifactError, match="does not describe a qsae coder"):
        qsae_core.load(final)
    file.write_text("{")
    with pytest.raises(ArtifactError, match="not valid JSON"):
        qsae_core.load(final)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_no_trained_coder_has_is_refused_though_the_checksum_is_right(final, value):
    from qsae_core.artifact.tensor_files import load_tensors, save_tensors

    text = (final / coder_json.DESCRIPTION).read_text()
    tensors = load_tensors(final / places.TENSORS, text)
    for name in [name for name, tensor in tensors.items() if tensor.is_floating_point()]:
        altered = {**tensors, name: tensors[name].clone()}
        altered[name].view(-1)[-1] = value
        save_tensors(final / places.TENSORS, altered, text)
        with pytest.raises(ArtifactError, match=f"{name} has NaN or infinite values"):
            qsae_core.load(final)


def test_a_missing_plugin_is_named_with_the_distribution_to_install(final):
    from qsae_core.artifact.tensor_files import load_tensors, save_tensors

    file = final / coder_json.DESCRIPTION
    tensors = load_tensors(final / places.TENSORS, file.read_text())
    description = json.loads(file.read_text())
    description["config"]["sae"]["use"] = "exotic"
    description["distributions"]["sae"] = {"name": "qsae-sae-exotic", "version": "2.1"}
    file.write_text(json.dumps(description))
    save_tensors(final / places.TENSORS, tensors, file.read_text())
    with pytest.raises(PluginError, match="exotic") as caught:
        qsae_core.load(final)
    assert "pip install qsae-sae-exotic==2.1" in str(caught.value)


def test_a_folder_that_holds_no_coder_and_a_path_that_is_not_there(tmp_path):
    with pytest.raises(ArtifactError, match="holds no trained coder"):
        qsae_core.load(tmp_path)
    with pytest.raises(ArtifactError, match="no such file"):
        qsae_core.load(tmp_path / "nothing")
    (tmp_path / "checkpoints" / "step_00000004").mkdir(parents=True)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ArtifactError, match="its training has not come to an end") as error:
        qsae_core.load(tmp_path)
    assert error.value.next == f"qsae train --resume {tmp_path}"


def test_a_loaded_coder_exports_again_what_it_was_loaded_from(trained, tmp_path):
    loaded = qsae_core.load(trained.path)
    again = loaded.export()
    stored = load_file(trained.final / places.TENSORS)
    assert set(again.tensors) == set(stored)
    assert all(torch.equal(again.tensors[name], stored[name]) for name in stored)


@pytest.mark.parametrize("kernel_set", ["none", "auto"])
def test_serving_from_packed_codes_makes_no_float_matrix(kernel_set):
    registry = load_plugins().registry
    activate_kernels(kernel_set, registry)
    config = resolve([Layer({"sae": {"use": "ternary", "n_latents": 2048}}, "test")], registry)
    coder = untrained(config, registry, 48, screen="int8", arithmetic="exact")
    x = sample_inputs(coder, 40, seed=0)
    with torch.no_grad():
        screened = coder(x)
        assert coder.W_enc.rows()._floats is None
        assert coder.W_dec.rows()._floats is None
        coder.screen = "none"
        exact = coder(x)  # the exact product needs the encoder as floats; the decoder still does not
    assert coder.W_dec.rows()._floats is None
    assert torch.equal(screened, exact)
    activate_kernels("auto", registry)
