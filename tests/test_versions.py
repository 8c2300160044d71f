"""One version for all distributions: where it is said, how it is set, and what a release needs."""

from __future__ import annotations

import pathlib
import re
import shutil
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # pytest's importlib mode leaves it out
from ci_scripts import script
from distributions import ROOT, bounds, distributions, faults, write


@pytest.fixture
def copy(tmp_path: pathlib.Path) -> pathlib.Path:
    """What says a version, in folders of their own."""
    files = [d.folder / "pyproject.toml" for d in distributions()]
    others = ["qsae_core/__init__.py", "CHANGELOG.md", "plugins/README.md"]
    for path in [*files, *(ROOT / name for name in others)]:
        to = tmp_path / path.relative_to(ROOT)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, to)
    return tmp_path


def test_the_distributions_are_the_folders():
    """Those with a pyproject file, looked for in another way."""
    found = distributions()
    places = ("pyproject.toml", "*/pyproject.toml", "*/*/pyproject.toml")
    assert {d.folder for d in found} == {path.parent for place in places for path in ROOT.glob(place)}
    assert (found[0].name, found[-1].name) == ("qsae", "qsae-all")
    assert all(d.name == d.folder.name for d in found[1:])


def test_all_agree():
    assert faults() == [], "`.ci/version VERSION` writes it everywhere"


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("0.1.0", ">=0.1,<0.2"),
        ("0.1.3", ">=0.1.3,<0.2"),
        ("0.9.0", ">=0.9,<0.10"),
        ("0.2.0rc1", ">=0.2.0rc1,<0.3"),
        ("1.0.0", ">=1.0,<2"),
        ("1.4.2", ">=1.4.2,<2"),
    ],
)
def test_what_ours_ask_of_one_another(version, expected):
    assert bounds(version) == expected


def test_a_version_is_written_everywhere(copy):
    changed = write("0.7.1", copy)
    assert len(changed) == len(distributions()) + 2
    report = (copy / "plugins" / "qsae-report" / "pyproject.toml").read_text()
    assert '\nversion = "0.7.1"\n' in report
    assert '"qsae-samples>=0.7.1,<0.8"' in report
    assert 'serve = ["qsae-splice>=0.7.1,<0.8", "qsae-data-lm>=0.7.1,<0.8"]' in report
    before = (ROOT / "plugins" / "qsae-report" / "pyproject.toml").read_text()
    assert re.findall(r'"torch[^"]*"|"jinja2[^"]*"', report) == re.findall(
        r'"torch[^"]*"|"jinja2[^"]*"', before
    )
    assert '\n__version__ = "0.7.1"\n' in (copy / "qsae_core" / "__init__.py").read_text()
    # a plugin that is made with 0.7.1 works with all of 0.7
    assert 'dependencies = ["qsae>=0.7,<0.8", "torch' in (copy / "plugins" / "README.md").read_text()
    assert faults(copy) == ["CHANGELOG.md has no section [0.7.1]"]
    assert write("0.7.1", copy) == []


def test_what_does_not_agree_is_named(copy):
    report = copy / "plugins" / "qsae-report" / "pyproject.toml"
    text = report.read_text()
    version = distributions()[0].version
    text = text.replace(f'version = "{version}"', 'version = "9.9"')
    text = re.sub('"qsae-samples[^"]*"', '"qsae-samples>=9.8,<9.9"', text)
    report.write_text(re.sub('"qsae-splice[^"]*"', '"qsae-slice"', text))
    (copy / "qsae_core" / "__init__.py").write_text('__version__ = "9.7"\n')
    where = "plugins/qsae-report/pyproject.toml"
    assert faults(copy) == [
        f"qsae_core/__init__.py says 9.7, core {version}",
        f"{where} says 9.9, core {version}",
        f"{where}: qsae-samples>=9.8,<9.9 should be qsae-samples{bounds(version)}",
        f"{where}: qsae-slice is of no distribution here",
    ]


def test_a_plugin_without_bounds_is_named(copy):
    folder = copy / "plugins" / "qsae-new"
    folder.mkdir()
    version = distributions()[0].version
    project = f'[project]\nname = "qsae-new"\nversion = "{version}"\ndependencies = ["qsae"]\n'
    (folder / "pyproject.toml").write_text(project)
    expected = f"plugins/qsae-new/pyproject.toml: qsae should be qsae{bounds(version)}"
    assert faults(copy) == [expected]


def test_a_tag_is_of_the_version_and_of_a_dated_section():
    check = script("version").tag_faults
    dated = "# Changelog\n\n## [0.3.0] - 2027-02-01\n\n## [0.2.0] - unreleased\n"
    assert check("v0.3.0", "0.3.0", dated) == []
    assert check("v0.2.0", "0.2.0", dated) == ["CHANGELOG.md has no line '## [0.2.0] - YYYY-MM-DD'"]
    (wrong,) = check("v0.3.1", "0.3.0", dated)
    assert "its tag would be v0.3.0" in wrong
