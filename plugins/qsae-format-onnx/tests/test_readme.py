"""The README's worked examples, one after another in one folder."""

from __future__ import annotations

import pathlib
import re
import shlex

from click.testing import CliRunner

from qsae_cli.main import cli

README = pathlib.Path(__file__).parents[1] / "README.md"
BLOCK = re.compile(r"^<!-- run -->\n```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_worked_examples(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = BLOCK.findall(README.read_text(encoding="utf-8"))
    assert [language for language, _ in found] == ["sh", "python", "python", "python"]
    for language, text in found:
        if language == "python":
            exec(compile(text, str(README), "exec"), {})
            continue
        for line in text.splitlines():
            result = CliRunner().invoke(cli, shlex.split(line)[1:])
            assert result.exit_code == 0, result.output
