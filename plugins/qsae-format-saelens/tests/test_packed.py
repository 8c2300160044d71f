"""The format ``saelens-packed``: the bytes of a stored coder, fewer of them, and the same again."""

from __future__ import annotations

import json
import pathlib
import shutil
import zlib

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from qsae_format_saelens import STORED_FILES, SaeLensPackedConfig, file_of_bytes
from qsae_format_saelens.packed import SaeLensPackedFormat
from qsae_format_saelens.stored_bytes import compressed
from safetensors.torch import load_file, save, save_file

import qsae_core
from qsae_cli.main import cli
from qsae_core.errors import ArtifactError

FORMAT = SaeLensPackedFormat(SaeLensPackedConfig())
FEW = (
    "--batch-size 64 --eval-tokens 64 --eval-every 0 --statistics-tokens 128 --threads 1 --no-compare-float "
    "--eval reconstruction --data tensors --data-path x.pt"
)
FOUR_BITS = (
    "--sae topk --k 32 --quantizer ste --quantizer.n-bits 4 --encoder-quantizer ste "
    "--encoder-quantizer.n-bits 4 --steps 1"
)


def called(line, code=0):
    result = CliRunner().invoke(cli, line.split())
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result.output


def size(folder):
    return sum(file.stat().st_size for file in pathlib.Path(folder).iterdir())


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(torch.randn(400, 24, generator=torch.Generator().manual_seed(0)), "x.pt")
    called(f"train {FOUR_BITS} --k 4 --n-latents 64 {FEW} --name small")
    return "results/small/tensors/1"


def test_four_bits_take_an_eighth_of_the_float_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(torch.randn(400, 576, generator=torch.Generator().manual_seed(0)), "x.pt")
    called(f"train {FOUR_BITS} --n-latents 8192 {FEW} --name coder")
    run = "results/coder/tensors/1"
    called(f"export {run} --format saelens --out floats")
    called(f"export {run} --format saelens-packed --out packed")
    assert size("floats") > 4 * (2 * 8192 * 576 + 8192 + 576)
    assert 8 * size("packed") <= size("floats")
    stored = pathlib.Path(run) / "checkpoints" / "final"
    assert size("packed") < 0.95 * sum((stored / name).stat().st_size for name in STORED_FILES.values())


def test_the_stored_coder_comes_back_byte_for_byte(run):
    called(f"export {run} --format saelens-packed --out packed")
    output = called("import packed --out back")
    assert "topk: 64 latents, d=24" in output
    stored = pathlib.Path(run) / "checkpoints" / "final"
    assert sorted(file.name for file in pathlib.Path("back").iterdir()) == sorted(STORED_FILES.values())
    for name in STORED_FILES.values():
        assert (pathlib.Path("back") / name).read_bytes() == (stored / name).read_bytes()
    x = torch.randn(8, 24)
    assert torch.equal(qsae_core.read_checkpoint("packed")(x), qsae_core.load(run)(x))
    refused = called("import packed --out other --data tensors --data-path x.pt", code=2)
    assert "has its own record of its data" in refused
    assert not pathlib.Path("other").exists()


def test_cfg_says_what_saelens_reads_of_it(run):
    called(f"export {run} --format saelens-packed --out packed")
    cfg = json.loads(pathlib.Path("packed/cfg.json").read_text())
    assert cfg == {
        "architecture": "qsae",
        "d_in": 24,
        "d_sae": 64,
        "d_out": 24,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": "6.54.12", "sae_lens_training_version": None},
    }
    tensors = load_file("packed/sae_weights.safetensors")
    assert {name: tensor.dtype for name, tensor in tensors.items()} == dict.fromkeys(
        STORED_FILES, torch.uint8
    )


def test_what_saelens_said_of_an_imported_coder_stays(run):
    called(f"export {run} --format saelens --out floats")
    cfg = pathlib.Path("floats/cfg.json")
    said = json.loads(cfg.read_text()) | {"reshape_activations": "hook_z"}
    said["metadata"] |= {
        "hook_name": "blocks.5.attn.hook_z",
        "model_name": "gpt2-small",
        "prepend_bos": False,
    }
    cfg.write_text(json.dumps(said))
    called("import floats --out imported --data tensors --data-path x.pt")
    called("export imported --format saelens-packed --out packed")
    packed = json.loads(pathlib.Path("packed/cfg.json").read_text())
    assert packed["reshape_activations"] == "hook_z"
    assert packed["metadata"] == said["metadata"]


def test_only_one_of_the_two_formats_knows_a_folder(run):
    called(f"export {run} --format saelens-packed --out packed")
    called(f"export {run} --format saelens --out floats")
    assert FORMAT.recognizes(pathlib.Path("packed"))
    assert not FORMAT.recognizes(pathlib.Path("floats"))
    refused = called("import packed --format saelens --out other", code=2)
    assert "architecture 'qsae' is none of SAELens" in refused
    refused = called("import floats --format saelens-packed --out other", code=2)
    assert "holds no coder that was packed for SAELens" in refused


# --- bytes


def test_bits_of_a_code_stand_beside_each_other():
    # the codes 5, 2, 0, ... of 3 bits as planes, the most significant bits first: 1 0 0, 0 1 0, 1 0 0
    planes = torch.tensor([[[0b001]], [[0b010]], [[0b001]]], dtype=torch.uint8)
    file = save({"codes": planes})
    stored = zlib.decompress(compressed(file))
    assert stored[:-3] == file[:-3]
    assert list(stored[-3:]) == [0b10101000, 0, 0]  # 101 010 000 ...
    assert file_of_bytes(compressed(file), "here") == file


@pytest.mark.parametrize("shape", [(4, 7, 3), (2, 5, 1, 9), (8, 3, 5), (3, 300_001, 1), (9, 2, 2), (1, 4, 4)])
def test_every_file_comes_back(shape):
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    tensors = {"codes": codes, "scales": torch.randn(5), "more": codes[..., :1].clone()}
    for data in (save(tensors), b"", b"{}", b"\xff" * 50, save({})[:5]):
        assert file_of_bytes(compressed(data), "here") == data


def test_codes_of_normal_weights_take_what_they_hold():
    codes = (
        (torch.randn(4096, 64, generator=torch.Generator().manual_seed(2)) * 3 + 8).clamp(0, 15).round().int()
    )
    share = torch.bincount(codes.flatten()).double() / codes.numel()
    held = -(share * share.clamp_min(1e-300).log2()).sum().item() * codes.numel() / 8
    bits = np.unpackbits(codes.numpy().astype(np.uint8)[..., None], axis=2)[..., 4:]  # [4096, 64, 4]
    planes = torch.tensor(np.packbits(bits.transpose(2, 0, 1), axis=2, bitorder="little"))
    assert len(compressed(save({"codes": planes}))) < 1.02 * held + 200


LYING = {
    "a size that is not there": {"c": {"dtype": "U8", "shape": [4, 2**40, 2], "data_offsets": [0, 2**43]}},
    "a place outside": {"c": {"dtype": "U8", "shape": [2, 2, 2], "data_offsets": [-90, -82]}},
    "text for a number": {"c": {"dtype": "U8", "shape": [2, "2", 2], "data_offsets": ["0", "8"]}},
    "no mapping": {"c": 3},
}


@pytest.mark.parametrize("case", LYING)
def test_headers_that_lie_change_nothing(case):
    header = json.dumps(LYING[case]).encode()
    data = len(header).to_bytes(8, "little") + header + bytes(range(8))
    assert file_of_bytes(compressed(data), "here") == data


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"no stream", "is no zlib stream"),
        (b"", "is truncated, or grows"),
        (compressed(bytes(range(200)))[:-9], "is truncated, or grows"),
        (compressed(b"ab") + b"more", "is truncated, or grows"),
        (zlib.compress(b"\0" * 2**24, 9), "is truncated, or grows"),  # a thousand times its size
    ],
)
def test_streams_that_are_no_such_stream_are_refused(data, fault):
    with pytest.raises(ArtifactError, match=fault) as caught:
        file_of_bytes(data, "weights: coder_json")
    assert caught.value.where == "weights: coder_json"


def test_damaged_folders_are_refused(run, tmp_path):
    called(f"export {run} --format saelens-packed --out packed")
    tensors = load_file("packed/sae_weights.safetensors")
    damaged = {
        "other types": {name: tensor.float() for name, tensor in tensors.items()},
        "another shape": {name: tensor[None] for name, tensor in tensors.items()},
        "half of it": {name: tensor[: len(tensor) // 2].clone() for name, tensor in tensors.items()},
        "one missing": {"coder_json": tensors["coder_json"]},
        "another byte": {**tensors, "coder_json": tensors["coder_json"] ^ 1},
        "another coder's": {**tensors, "coder_json": _with_another_seed(tensors["coder_json"])},
    }
    for number, (what, changed) in enumerate(damaged.items()):
        shutil.copytree("packed", f"p{number}")
        save_file(changed, f"p{number}/sae_weights.safetensors")
        assert "qsae: error:" in called(f"import p{number} --out out{number}", code=2), what
        assert not pathlib.Path(f"out{number}").exists()


def _with_another_seed(tensor):
    text = file_of_bytes(tensor.numpy().tobytes(), "here").replace(b'"seed": 0', b'"seed": 1')
    return torch.frombuffer(bytearray(compressed(text)), dtype=torch.uint8)
