"""README.md: every command and every piece of code in it is run, section by section, each in an empty folder.

Commands are those of the page; what is changed, so that a section takes seconds and needs no network, stands
in ``Reader.adapt``.
"""

from __future__ import annotations

import json
import pathlib
import re
import shutil
import sys
from collections.abc import Iterator

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # pytest's importlib mode leaves it out
from documents import blocks, commands, tables
from reader import HUB_MODEL, PROGRAMS, Reader

from qsae_core.kinds import KINDS
from qsae_core.plugins.records import load_plugins

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
SECTIONS = list(dict.fromkeys(block.section for block in blocks(README)))
SHARED = "Share on the Hugging Face Hub"
BUILT_ELSEWHERE = {"Two commands", "Install", SHARED}
"""Sections with tests of their own: `make` would set up an environment; installing needs a closer look, and
sharing a hub."""


@pytest.fixture
def reader(tmp_path: pathlib.Path) -> Reader:
    """In a folder with what the page supposes a reader to have: hidden states, texts, a language model."""
    import torch

    generator = torch.Generator().manual_seed(0)
    hidden_states = torch.randn(2000, 6, generator=generator) @ torch.randn(6, 24, generator=generator)
    torch.save(hidden_states, tmp_path / "hidden_states.pt")
    torch.save(hidden_states.flip(1), tmp_path / "other_states.pt")
    for folder, sources in (("my_texts", ("argparse", "ast", "enum")), ("other_texts", ("json", "heapq"))):
        (tmp_path / folder).mkdir()
        for name in sources:
            module = __import__(name)
            shutil.copy(module.__file__, tmp_path / folder / f"{name}.txt")
    return Reader(tmp_path)


def write_language_model(folder: pathlib.Path) -> None:
    """A Llama of twelve small layers with random weights, and the built-in model's tokenizer."""
    import qsae_data_lm
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    builtin = pathlib.Path(qsae_data_lm.__file__).parent / "builtin"
    tokenizer = AutoTokenizer.from_pretrained(builtin)
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=12,
        num_attention_heads=2,
        max_position_embeddings=256,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def sections() -> list:
    """Every section with code; those that train are slow on a busy machine."""
    parameters = []
    for name in SECTIONS:
        trains = any("qsae train" in line for line in _shown(name) if "--help" not in line)
        parameters.append(pytest.param(name, marks=[pytest.mark.slow] if trains else []))
    return parameters


def _shown(name: str) -> list[str]:
    return [line for b in blocks(README) if b.section == name for line in (b.mark or "", *commands(b))]


@pytest.fixture
def logged_in(reader: Reader) -> Iterator[None]:
    """To a hub on this machine, of which nothing else knows."""
    sys.path.insert(0, str(ROOT / "plugins" / "qsae-hub" / "tests"))
    from hub_server import OWNER, running_hub

    with running_hub() as hub:
        own = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.url, "HF_TOKEN": OWNER, "HF_HUB_DISABLE_XET": "1"}
        reader.environ = {**own, "HF_HOME": str(reader.folder / "hub")}
        yield


@pytest.mark.slow
def test_the_section_on_sharing_works_with_a_hub(reader, logged_in):
    reader.follow([block for block in blocks(README) if block.section == SHARED])
    assert (reader.folder / "pulled" / "checkpoints" / "final" / "coder.safetensors").is_file()
    (push,) = [output for command, output in reader.outputs.items() if command.startswith("qsae push")]
    assert 'load it: qsae_core.load("hf://me/my-saes/layer-9/ternary")' in push


@pytest.mark.parametrize("name", [p for p in sections() if p.values[0] not in BUILT_ELSEWHERE])
def test_a_section_works_as_it_stands(name, reader):
    section = [block for block in blocks(README) if block.section == name]
    assert {block.language for block in section} <= {"sh", "python", "yaml"}
    if any(HUB_MODEL in block.text for block in section):
        write_language_model(reader.folder / "SmolLM2-135M")
    reader.follow(section)
    for command, output in reader.outputs.items():
        if command.startswith("qsae train") and "--help" not in command and "--dry-run" not in command:
            artifact = re.search(r"^artifact: (.*)$", output, re.MULTILINE)[1]
            name = "coders.json" if "--per-layer" in command else "coder.safetensors"
            assert (reader.folder / artifact / name).is_file(), command


def test_what_the_install_section_installs(reader):
    reader.follow([block for block in blocks(README) if block.section == "Install"])
    look = """
import sys, qsae_core
from qsae_core.plugins.records import discover
assert qsae_core.__file__.startswith(sys.argv[1]), qsae_core.__file__
plugins = discover({}, [sys.argv[1]])
print(*(f"{record.name}={record.status}" for record in plugins.records))
for kind in ("sae", "activation", "sparsity", "quantizer", "metric", "evaluation", "data"):
    for spec in plugins.registry.specs(kind):
        plugins.registry.load_target(spec)
"""
    named = re.findall(r"\./plugins/([\w-]+)", README.read_text(encoding="utf-8"))
    assert len(named) == 8
    assert reader.execute(look, [str(reader.site)]).split() == [f"{name}=ok" for name in sorted(named)]


def test_a_single_plugin_lists_and_describes_itself(reader, monkeypatch):
    monkeypatch.setenv("QSAE_PLUGINS", "qsae-sae-ternary")
    listed = json.loads(reader.execute(PROGRAMS["qsae"], ["list-plugins", "--json"]))
    assert [entry["name"] for entry in listed if entry["status"] == "ok"] == ["qsae-sae-ternary"]
    assert "n_latents" in reader.execute(PROGRAMS["qsae"], ["describe", "sae", "ternary"])


def test_the_two_commands_are_targets_and_the_demo_is_what_the_page_says():
    (shown,) = [
        block for block in blocks(README) if block.section == "Two commands" and block.language == "sh"
    ]
    targets = [command.split() for command in commands(shown)]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets == [["make", "demo"], ["make", "test"]]
    for _, target in targets:
        assert re.search(rf"^{target}: setup", makefile, re.MULTILINE)
    (first,) = re.findall(r"^    (qsae train .*)$", README.read_text(encoding="utf-8"), re.MULTILINE)[:1]
    recipe = re.search(r"^demo:.*\n\t(.*)$", makefile, re.MULTILINE)[1]
    assert recipe.removeprefix("$(BIN)/").startswith(first)


def test_the_demo_output_has_the_shape_of_what_the_demo_prints():
    from qsae_cli.summary import HEADINGS, labels

    (block,) = [block for block in blocks(README) if block.mark == "demo output"]
    lines = block.text.splitlines()
    assert re.match(r"results/ternary-builtin/\d+/\d+: [\d,]+ tokens of builtin, layer \d+$", lines[0])
    for _, heading, _ in HEADINGS:
        assert heading.removesuffix(">") in lines[1]
    named = labels({"sae": {"use": "ternary"}, "quantizer": {"use": "ste"}, "sparsity": {"use": "topk"}})
    assert lines[2].startswith(named["coder"])
    assert lines[3].startswith(named["float_twin"])


def test_the_table_of_plugins_lists_what_is_here():
    rows = re.findall(r"^\| \[([\w-]+)\]\(([^)]*)\) \| ([^|]*) \| [^|]+ \|$", tables(README), re.MULTILINE)
    lines = (ROOT / "plugins" / "requirements-dev.txt").read_text(encoding="utf-8").split()
    installed = [re.sub(r"\[.*", "", line).rpartition("/")[2] for line in lines if "plugins/" in line]
    assert sorted(name for name, _, _ in rows) == sorted(installed)
    load_plugins().commands(reserved=())  # which records know once somebody has asked
    records = {record.name: record for record in load_plugins().records}
    for name, link, brings in rows:
        assert link == f"plugins/{name}"
        parts = [f"{kind}: {', '.join(names)}" for kind, names in records[name].components.items()]
        if records[name].commands:
            parts.append(f"command: {', '.join(records[name].commands)}")
        assert brings == "; ".join(parts)


def test_the_kinds_that_nothing_fills_are_named():
    text = " ".join(README.read_text(encoding="utf-8").split())
    sentence = re.search(
        r"The kinds? ([^.]*) (?:is|are) there for plugins, and nothing in this repository", text
    )
    named = re.findall(r"`(\w+)`", sentence[1]) if sentence else []
    here = {
        kind for r in load_plugins().records for kind in r.components if (ROOT / "plugins" / r.name).is_dir()
    }
    assert sorted(named) == sorted(KINDS.keys() - here)


def test_contributing_names_targets_that_there_are():
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^ *make ([\w-]+)", page, re.MULTILINE) + re.findall(r"`make ([\w-]+)", page)
    assert len(targets) > 10
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for script in re.findall(r"\.ci/[\w-]+", page):
        assert (ROOT / script).is_file(), script


def test_links_lead_somewhere():
    for page in [README, ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md"), ROOT / "plugins" / "README.md"]:
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            if not link.startswith("https://"):
                assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_the_sizes_in_the_introduction():
    import torch
    from qsae_quantizers import SteConfig
    from qsae_quantizers.ste import Ste

    bits = Ste(SteConfig(), (64, 2304)).eval().pack(torch.randn(64, 2304)).bits_per_weight
    text = README.read_text(encoding="utf-8")
    assert f"65,536 atoms of width 2304 are {65536 * 2304 * 4 / 1e6:.0f} MB" in text
    assert f"takes {65536 * 2304 * bits / 8 / 1e6:.0f} MB" in text
