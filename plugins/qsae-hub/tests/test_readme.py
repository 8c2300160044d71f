"""The README's example, as it stands, with a hub on this machine."""

from __future__ import annotations

import pathlib
import re
import shlex

README = pathlib.Path(__file__).resolve().parents[1] / "README.md"
SMALL = "--n-latents 32 --batch-size 64 --statistics-tokens 64 --eval-tokens 128 --eval-every 0 --threads 1"


def test_the_example_works_as_it_stands(hub, qsae):
    text = README.read_text(encoding="utf-8")
    blocks = re.findall(r"<!-- an example -->\n```(\w+)\n(.*?)```", text, re.DOTALL)
    assert [language for language, _ in blocks] == ["sh", "python", "sh"]
    for language, code in blocks:
        if language == "python":
            names: dict = {}
            exec(code, names)
            assert names["coder"].n_latents == 32
            continue
        for line in code.strip().splitlines():
            words = shlex.split(line)
            small = SMALL.split() if words[1] == "train" else []
            qsae(*words[1:], *small)
    repo = hub.repos["me/my-saes"]
    assert repo.messages == [
        "initial commit",
        "topk (none) with qsae in layer-9/topk",
        "topk (rtn) with qsae in layer-9/4bit",
    ]
    card = repo.files["README.md"].decode()
    assert "license: mit" in card
    assert "| layer-9/4bit | topk (rtn)" in card
    assert pathlib.Path("pulled/metrics.json").is_file()


def test_huggingface_hub_is_imported_where_it_is_used_and_not_before(process):
    code = """
import sys
from click.testing import CliRunner
from qsae_cli.main import cli
for words in (["--help"], ["list-plugins"], ["push", "--help"], ["pull", "--help"], ["import", "--help"]):
    assert CliRunner().invoke(cli, words).exit_code == 0, words
print(sorted({"huggingface_hub", "torch", "httpx", "httpx2"} & set(sys.modules)))
"""
    out, err = process(code).communicate(timeout=120)
    assert out == "[]\n", err


def test_every_option_is_in_a_table():
    from qsae_hub.pull_command import pull
    from qsae_hub.push_command import push

    text = README.read_text(encoding="utf-8")
    for command in (push, pull):
        section = text.partition(f"## qsae {command.name}\n")[2].partition("\n## ")[0]
        shown = set(re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE))
        assert shown == {p.opts[0] if p.opts[0].startswith("-") else p.metavar for p in command.params}
