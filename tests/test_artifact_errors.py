"""What a user is told about a trained coder that cannot be used: what, where, what is allowed, what next."""

from __future__ import annotations

import pathlib
import re
import shlex
import shutil

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import qsae_core
from qsae_cli.main import cli
from qsae_core.artifact import description as coder_json
from qsae_core.artifact import places
from qsae_core.errors import ArtifactError, ConfigError, QsaeError

SMALL = (
    "--n-latents 64 --data synthetic --preset tiny --steps 8 --batch-size 128 --statistics-tokens 256 "
    "--eval-tokens 512 --eval-every 0 --threads 1 --eval reconstruction --no-compare-float --device cpu"
)
PLUGIN = """
    from qsae_core import CoderConfig, ComponentSpec, hookimpl

    class DoubleConfig(CoderConfig):
        '''A plain SAE.'''

    @hookimpl
    def qsae_register_saes():
        parts = {"activation": {"use": "relu"}, "sparsity": {"use": "topk", "k": 4}}
        return [ComponentSpec("sae", "double", DoubleConfig, "qsae_sae_double.model:DoubleSAE", parts)]
"""
MODEL = """
    from qsae_core.contracts.coder import LossOutput
    from qsae_core.coders.linear import LinearCoder

    class DoubleSAE(LinearCoder):
        def loss(self, batch):
            x, codes, x_hat, _, _ = self.training_pass(batch)
            return LossOutput({"mse": (x - x_hat).square().sum(1).mean()}, codes, x, x_hat)
"""


def qsae(line: str, *paths: pathlib.Path):
    return CliRunner().invoke(cli, [*shlex.split(line), *map(str, paths)], prog_name="qsae")


def complete(text: str, what: str, where: str, allowed: str, next_: str) -> None:
    """All four parts of an error, each with what is to be found in it; and nothing of Python's."""
    assert "Traceback" not in text
    head, _, rest = text.partition("\n  allowed: ")
    permitted, _, command = rest.partition("\n  next:    ")
    assert what in head, text
    assert where in head, text
    assert allowed in permitted, text
    assert next_ in command, text


def refused(result, what: str, where: str, allowed: str, next_: str) -> None:
    assert result.exit_code == 2, result.output
    complete(result.stderr, what, where, allowed, next_)


def trained_in(out: pathlib.Path, flags: str) -> pathlib.Path:
    result = qsae(f"train {flags} {SMALL} --out", out)
    assert result.exit_code == 0, result.output
    (final,) = out.glob("*/*/*/checkpoints/final")
    return final


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> dict[str, pathlib.Path]:
    out = tmp_path_factory.mktemp("results")
    return {
        "packed": trained_in(out / "packed", "--sae ternary --k 4 --save-float"),
        "float": trained_in(out / "float", "--sae topk --k 4 --save-float"),
    }


@pytest.fixture
def packed(originals, tmp_path) -> pathlib.Path:
    """A quantized artifact that a test may damage."""
    return pathlib.Path(shutil.copytree(originals["packed"], tmp_path / "packed"))


@pytest.fixture
def floats(originals, tmp_path) -> pathlib.Path:
    """One in full precision."""
    return pathlib.Path(shutil.copytree(originals["float"], tmp_path / "float"))


# --- the plugin that made it


@pytest.fixture
def from_plugin(plugin_site, tmp_path) -> pathlib.Path:
    """An artifact of an SAE whose plugin is version 1.4."""
    plugin_site.add("qsae-sae-double", PLUGIN, version="1.4", files={"model.py": MODEL})
    done = plugin_site.qsae(*shlex.split(f"train --sae double {SMALL} --out"), str(tmp_path / "results"))
    assert done.returncode == 0, done.stderr
    (final,) = (tmp_path / "results").glob("*/*/*/checkpoints/final")
    return final


def renumber(plugin_site, version: str) -> None:
    (info,) = plugin_site.path.glob("*.dist-info")
    metadata = info / "METADATA"
    metadata.write_text(re.sub("Version: [0-9].*", f"Version: {version}", metadata.read_text()))
    info.rename(plugin_site.path / f"qsae_sae_double-{version}.dist-info")


def test_the_same_major_version_of_its_plugin_reads_it(plugin_site, from_plugin):
    renumber(plugin_site, "1.9.2")
    done = plugin_site.qsae("evaluate", str(from_plugin))
    assert done.returncode == 0, done.stderr


def test_another_major_version_of_its_plugin(plugin_site, from_plugin):
    renumber(plugin_site, "2.0")
    done = plugin_site.qsae("evaluate", str(from_plugin))
    assert done.returncode == 2
    complete(
        done.stderr,
        "made with sae 'double' of qsae-sae-double 1.4, and here it is that of qsae-sae-double 2.0",
        str(from_plugin / "coder.json"),
        "qsae-sae-double 1.x",
        "pip install qsae-sae-double==1.4",
    )


def test_a_plugin_that_is_not_installed(plugin_site, from_plugin):
    shutil.rmtree(plugin_site.path)
    for command in ("evaluate", "bench", "compare --evaluate"):
        done = plugin_site.qsae(*command.split(), str(from_plugin))
        assert done.returncode == 2, command
        complete(
            done.stderr,
            "made with sae 'double' of qsae-sae-double 1.4, which is not installed",
            "coder.json",
            "qsae-sae-double 1.x",
            "pip install qsae-sae-double==1.4, then qsae list-plugins",
        )


# --- its files


def test_a_truncated_file(packed):
    file = packed / places.TENSORS
    file.write_bytes(file.read_bytes()[:-1])
    refused(
        qsae("evaluate", packed),
        "is truncated",
        str(file),
        "the file as qsae wrote it",
        "copy the whole folder",
    )


def test_a_wrong_checksum(packed):
    file = packed / places.TENSORS
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(bytes(raw))
    refused(
        qsae("evaluate", packed),
        "do not match the checksum",
        str(file),
        "the file as qsae wrote it",
        "copy the whole folder",
    )


def test_a_cut_description(packed):
    file = packed / coder_json.DESCRIPTION
    file.write_text(file.read_text()[:200])
    refused(
        qsae("evaluate", packed), "is not valid JSON", str(file), "as qsae wrote it", "copy the whole folder"
    )


def test_a_path_with_no_coder(tmp_path):
    refused(
        qsae("evaluate", tmp_path / "absent"),
        "no such file",
        str(tmp_path / "absent"),
        "a run's folder",
        "qsae runs",
    )
    refused(
        qsae("evaluate", tmp_path), "holds no trained coder", str(tmp_path), "a run's folder", "qsae runs"
    )


# --- float and packed


def test_float_masters_where_the_packed_coder_is_asked_for(packed):
    file = packed / places.MASTERS
    refused(
        qsae("evaluate", file), "holds the float weights", str(file), str(packed), f"qsae evaluate {packed}"
    )
    (packed / places.TENSORS).write_bytes(file.read_bytes())
    refused(
        qsae("evaluate", packed),
        "does not fit the coder that it describes",
        str(packed),
        places.TENSORS,
        "copy the whole folder",
    )


def test_a_packed_file_where_float_masters_are_asked_for(packed):
    (packed / places.MASTERS).write_bytes((packed / places.TENSORS).read_bytes())
    coder = qsae_core.load(packed)
    with pytest.raises(ArtifactError) as caught:
        coder.dictionary(quantized=False)
    complete(
        str(caught.value),
        "holds no tensor W_dec.weight",
        str(packed / places.MASTERS),
        "the file that qsae wrote under this name",
        "copy the whole folder",
    )


def another_runs_masters(folder: pathlib.Path, floats: pathlib.Path) -> None:
    shutil.copyfile(floats / places.MASTERS, folder / places.MASTERS)


def two_flipped_bits(folder: pathlib.Path, floats: pathlib.Path) -> None:
    file = folder / places.MASTERS
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    raw[-5] ^= 64
    file.write_bytes(bytes(raw))


@pytest.mark.parametrize("damage", [another_runs_masters, two_flipped_bits])
def test_float_masters_that_are_not_those_of_the_coder(damage, packed, floats, tmp_path):
    whole = qsae_core.load(packed).dictionary(quantized=False)
    assert whole.shape == (64, 64)
    damage(packed, floats)
    coder = qsae_core.load(packed)  # packed weights alone are served
    expected = "was altered, or the JSON file beside it: the contents do not match the checksum in its header"
    for use in (lambda: coder.dictionary(quantized=False), coder.atom_errors):
        with pytest.raises(ArtifactError) as caught:
            use()
        place = str(packed / places.MASTERS)
        complete(str(caught.value), expected, place, "the file as qsae wrote it", "copy the whole folder")
    for command in ("evaluate", f"quantize --quantizer rtn --out {tmp_path / 'new'}"):
        result = qsae(command, packed)
        assert result.exit_code == 2, result.output
        assert str(caught.value) in result.stderr


def test_float_masters_without_the_description_that_their_checksum_includes(packed):
    coder = qsae_core.load(packed)
    (packed / coder_json.DESCRIPTION).unlink()
    with pytest.raises(ArtifactError) as caught:
        coder.dictionary(quantized=False)
    assert str(packed / coder_json.DESCRIPTION) in str(caught.value)


def test_a_packed_coder_whose_floats_were_not_kept(packed):
    (packed / places.MASTERS).unlink()
    with pytest.raises(ArtifactError) as caught:
        qsae_core.load(packed).dictionary(quantized=False)
    complete(
        str(caught.value),
        "not in this artifact",
        str(packed),
        "dictionary(quantized=True)",
        "train with --save-float",
    )


def test_a_float_coder_has_no_packed_codes(floats):
    coder = qsae_core.load(floats)
    with pytest.raises(ConfigError) as caught:
        coder.codes_and_scales()
    complete(str(caught.value), "its quantizer is none", "", "a quantizer of scaled points", "dictionary()")
    assert torch.equal(coder.dictionary(quantized=False), coder.dictionary())


def test_a_quantized_coder_without_masters_is_not_quantized_again(packed, tmp_path):
    alone = tmp_path / "alone"
    shutil.copytree(places.artifact_folder(packed), alone, ignore=lambda *_: {"masters.safetensors"})
    refused(
        qsae("quantize --quantizer rtn --out", tmp_path, alone),
        "is quantized already",
        str(alone),
        "a coder whose quantizers are all none",
        "--save-float",
    )


# --- levels and numbers


def test_a_level_that_does_not_exist(floats):
    refused(
        qsae("evaluate --level 2", floats),
        "level 2 does not exist",
        str(floats),
        "1: it has one level alone",
        f"qsae evaluate {floats} --all-levels",
    )
    with pytest.raises(ConfigError) as caught:
        qsae_core.load(floats).at_level(0)
    complete(str(caught.value), "level 0 does not exist", "", "1: it has one level", "coder.levels")


@pytest.mark.parametrize("level", ["2", 2.0, True, [1]])
def test_a_level_that_is_no_whole_number(packed, level):
    what = f"a level is a whole number (got {level!r})"
    with pytest.raises(ConfigError) as caught:
        qsae_core.load(packed, level=level)
    complete(
        str(caught.value), what, str(packed), "1: it has one level", f"qsae evaluate {packed} --all-levels"
    )
    with pytest.raises(ConfigError) as caught:
        qsae_core.load(packed).at_level(level)
    complete(str(caught.value), what, "", "1: it has one level", "coder.levels")


def test_a_level_of_another_kind_of_whole_number(packed):
    assert qsae_core.load(packed, level=np.int64(1)).n_latents == 64


# --- how it is served


@pytest.mark.parametrize(
    ("choice", "what", "allowed"),
    [
        ({"screen": "int4"}, "there is no screen 'int4'", "none, bf16, int8"),
        ({"screen": None}, "there is no screen None", "none, bf16, int8"),
        ({"arithmetic": "foo"}, "there is no arithmetic 'foo'", "exact, fast"),
        ({"device": "cudaa"}, "device 'cudaa' cannot be used (RuntimeError: ", "cpu"),
        ({"device": "cuda:999"}, "device 'cuda:999' cannot be used (", "cpu"),
        ({"device": ""}, "device '' cannot be used (", "cpu"),
        ({"device": None}, "device None cannot be used (", "cpu"),
    ],
)
def test_a_choice_that_there_is_not(packed, choice, what, allowed):
    with pytest.raises(ConfigError) as caught:
        qsae_core.load(packed, **choice)
    ((name, _),) = choice.items()
    complete(str(caught.value), what, "device" if name == "device" else str(packed), allowed, f'{name}="')


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_gpu_that_is_not_there(packed):
    with pytest.raises(ConfigError) as caught:
        qsae_core.load(packed, device="cuda")
    assert "device 'cuda' cannot be used (AssertionError: " in str(caught.value)
    assert caught.value.allowed == "cpu"


@pytest.mark.parametrize("bits", ["0", "9", "-1", "2.5", "many"])
def test_bits_that_no_grid_has(bits, tmp_path):
    refused(
        qsae(f"train --sae topk --quantizer ste --n-bits {bits} --out", tmp_path / "results"),
        f"(got {bits!r})" if bits == "many" else f"(got {bits})",
        "--quantizer.n-bits",
        "1 to 8",
        "qsae describe quantizer ste",
    )
    assert not (tmp_path / "results").exists()


def test_group_sizes_that_do_not_add_up(tmp_path):
    refused(
        qsae(
            "train --sae matryoshka --n-latents 64 --set sae.group_sizes=[8,16,24] --out",
            tmp_path / "results",
        ),
        "group_sizes add up to 48, and n_latents is 64",
        "--set sae.group_sizes",
        "group sizes whose sum is 64",
        "qsae describe sae matryoshka",
    )
    refused(
        qsae("train --sae matryoshka --n-latents 60 --out", tmp_path / "results"),
        "n_latents (60) does not divide into 8 groups",
        "--sae.n-latents",
        "a multiple of 8",
        "qsae describe sae matryoshka",
    )
    assert not (tmp_path / "results").exists()


def test_the_parts_are_read_as_users_see_them():
    """``complete`` itself refuses an error that lacks one of its parts."""
    whole = QsaeError("is wrong", where="there", allowed="right", next="mend it")
    complete(str(whole), "wrong", "there", "right", "mend")
    for part in ("where", "allowed", "next"):
        lacking = {"where": "there", "allowed": "right", "next": "mend it"} | {part: None}
        error = QsaeError("is wrong", **lacking)
        with pytest.raises(AssertionError):
            complete(str(error), "wrong", "there", "right", "mend")
