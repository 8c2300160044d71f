"""Reads damaged and malicious files, thousands of them, in a process of its own with little memory to spare.

    python tests/hostile.py FORMATS|ARTIFACTS|FIELDS INPUTS SEED     one JSON line: read, refused, and faults

Whatever a reader is given, it reads it or raises a QsaeError. It never runs anything that a file names (an
audit hook sees processes, unpickling, sockets and files that are opened), never takes more than ``SPARE``
bytes beyond what it had, and never longer than ``SECONDS``.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import pathlib
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from hostile_fields import field_targets

ROOT = pathlib.Path(__file__).resolve().parents[1]
SPARE = 400 * 2**20
SECONDS = 20
FORBIDDEN = ("pickle.find_class", "os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn")
FORBIDDEN += ("socket.connect", "os.fork", "ctypes.dlopen", "shutil.rmtree", "os.symlink", "os.rename")
WORDS = (b"__reduce__", b"builtins", b"os\nsystem\n", b"../../etc/passwd", b"\x00" * 8, b"\xff" * 8, b"NaN")
NUMBERS = (0, -1, 1, 2**31 - 1, 2**31, 2**62, 2**63 - 1, 10**30, -(2**63), 1e308, 0.5)
VALUES = (
    *NUMBERS,
    None,
    True,
    "",
    "..",
    "../../x",
    "/etc/passwd",
    "\0",
    "x" * 5000,
    [],
    {},
    [[]],
    {"": None},
)


Changes = Callable[[pathlib.Path, random.Random], Iterator[str]]
Target = tuple[str, pathlib.Path, list[Callable[[], Any]], Changes]
"""Name, path, what is called, and what is changed before, again and again until nothing is left to change."""


class Watched:
    """What must not happen while a file is read, noticed by an audit hook."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.seen: list[str] = []
        sys.addaudithook(self.hook)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event in FORBIDDEN:
            self.seen.append(f"{event} {arguments!r}"[:300])
        if event == "open" and isinstance(arguments[0], str | bytes):
            path = arguments[0].decode() if isinstance(arguments[0], bytes) else arguments[0]
            writes = isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
            if writes or path.startswith(("/etc", "/root", "/home")) or ".." in pathlib.PurePath(path).parts:
                self.seen.append(f"open {path} {arguments[1]}")


def mutated(data: bytes, chance: random.Random) -> bytes:
    """The bytes with one to four changes, of a kind that chance chooses."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        size = len(changed)
        at = chance.randrange(size + 1)
        kind = chance.randrange(9)
        if not size or kind == 0:
            changed[at:at] = chance.choice(WORDS)
        elif kind == 1:
            changed[min(at, size - 1)] ^= 1 << chance.randrange(8)
        elif kind == 2:
            del changed[at:]
        elif kind == 3:
            del changed[at : at + chance.choice((1, 4, 16, 64, 1024))]
        elif kind == 4:
            width = chance.choice((1, 2, 4, 8))
            value = chance.choice((0, 1, 0x7F, 0xFF, 2 ** (8 * width) - 1, 2 ** (8 * width - 1)))
            changed[at : at + width] = (value % 2 ** (8 * width)).to_bytes(width, "little")
        elif kind == 5:
            other = chance.randrange(size)
            changed[at:at] = changed[other : other + chance.choice((8, 64, 512))]
        elif kind == 6:
            changed[at : at + 8] = bytes(chance.randrange(256) for _ in range(8))
        elif kind == 7:  # a number that is written out
            digits = [i for i, byte in enumerate(changed) if 48 <= byte <= 57]
            if digits:
                place = chance.choice(digits)
                changed[place : place + 1] = str(chance.choice(NUMBERS)).encode()
        else:
            word = chance.choice(WORDS)
            changed[at : at + len(word)] = word
    return bytes(changed)


def resettled(data: bytes, chance: random.Random) -> tuple[bytes, str] | None:
    """A JSON file with another value somewhere, or without a key, and where; None where it is none."""
    try:
        settings = json.loads(data)
    except ValueError:
        return None
    places: list[tuple[Any, Any]] = []

    def collect(value: Any) -> None:
        keys = (
            list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        )
        for key in keys:
            places.append((value, key))
            collect(value[key])

    collect(settings)
    if not places:
        return None
    holder, key = chance.choice(places)
    if chance.random() < 0.2 and isinstance(holder, dict):
        del holder[key]
    else:
        holder[key] = chance.choice(VALUES)
    value = holder[key] if isinstance(holder, list) else holder.get(key, "gone")
    return json.dumps(settings).encode(), f"{key!r} of {str(list(holder))[:80]} -> {value!r}"


def changed_files(
    path: pathlib.Path, chance: random.Random, then: Callable[[], None] | None = None
) -> Iterator[str]:
    """Change one file below a path, say which, and put all back; again and again.

    Args:
        then: what is done to the files once one was changed.
    """
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    whole = {file: file.read_bytes() for file in files}
    while True:
        file = chance.choice(files)
        data = whole[file]
        found = resettled(data, chance) if chance.random() < 0.5 else None
        if found is None:
            new = whole[chance.choice(files)] if chance.random() < 0.02 else mutated(data, chance)
            found = new, repr(new[:200])
        new, how = found
        file.write_bytes(new)
        if then is not None:
            then()
        yield f"{file.name}: {how}"
        for other in whole if then is not None else [file]:
            other.write_bytes(whole[other])


class Reader:
    """Calls that must not fail otherwise than with a QsaeError, and what became of them."""

    def __init__(self, watched: Watched, folder: str) -> None:
        from qsae_core.errors import QsaeError

        self.watched, self.folder, self.error = watched, folder, QsaeError
        self.counts = {"inputs": 0, "refused": 0, "read": 0}
        self.slowest, self.faults = 0.0, []

    def try_all(self, calls: list[Callable[[], Any]], what: str) -> None:
        self.counts["inputs"] += 1
        started = time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        self.watched.folder = self.folder
        refused = False
        try:
            for call in calls:
                try:
                    call()
                except self.error:
                    refused = True
        except BaseException as error:
            self.faults.append(f"{type(error).__name__}: {error} [{what}]"[:600])
        finally:
            self.watched.folder = None
            signal.setitimer(signal.ITIMER_REAL, 0)
        self.counts["refused" if refused else "read"] += 1
        self.slowest = max(self.slowest, time.perf_counter() - started)
        self.faults += [f"{event} [{what}]" for event in self.watched.seen]
        self.watched.seen.clear()


def format_targets(folder: pathlib.Path) -> Iterator[Target]:
    """(name, path, what is called) of each kind of file that installed formats write, and of golden ones."""
    from qsae_core.artifact.checkpoints import open_checkpoint
    from qsae_core.compose.compose import compose_format
    from qsae_core.conformance.format import written_forms
    from qsae_core.errors import QsaeError
    from qsae_core.plugins.records import load_plugins

    registry = load_plugins().registry

    def target(name: str, path: pathlib.Path) -> list[Callable[[], Any]]:
        form = compose_format(name, registry)

        def read() -> None:
            for member in (form.members(path) or {"": path}).values():
                open_checkpoint(member, registry, name)

        with contextlib.suppress(QsaeError):
            read()  # what is imported when it is first used is imported now
        return [lambda: form.recognizes(path), read]

    for name in registry.names("format"):
        for what, path in written_forms(compose_format(name, registry), folder / name):
            yield f"{name} {what}", path, target(name, path), changed_files
    for golden in sorted(ROOT.glob("plugins/*/tests/golden/*/checkpoint*")):
        place = folder / "golden" / golden.parent.parent.parent.parent.name / golden.parent.name / golden.name
        (shutil.copytree if golden.is_dir() else _copy)(golden, place)
        for name in registry.names("format"):
            if compose_format(name, registry).recognizes(place):
                yield f"{name} {golden.parent.name}", place, target(name, place), changed_files


def _copy(source: pathlib.Path, place: pathlib.Path) -> None:
    place.parent.mkdir(parents=True)
    shutil.copyfile(source, place)


def artifact_targets(folder: pathlib.Path) -> Iterator[Target]:
    """The same of stored coders: in float, packed, nested, several in one folder."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    import qsae_core
    from qsae_core.artifact import artifact
    from qsae_core.artifact.coder_sets import load_set, save_set
    from qsae_core.artifact.tensor_files import save_tensors
    from qsae_core.coders import CoderSet
    from qsae_core.compose.compose import compose_coder
    from qsae_core.config.layers import Layer
    from qsae_core.config.run import resolve
    from qsae_core.contracts import CoderShape
    from qsae_core.plugins.records import load_plugins

    registry, x = load_plugins().registry, torch.randn(3, 8)
    kinds = {
        "float": {"sae": {"use": "topk"}},
        "ternary": {"sae": {"use": "jumprelu"}, "quantizer": {"use": "ste"}},
        "planes": {"sae": {"use": "vanilla"}, "quantizer": {"use": "residual-binary"}},
        "nested": {"sae": {"use": "matryoshka"}, "quantizer": {"use": "ste", "n_bits": 4}},
    }

    def use(place: pathlib.Path) -> None:
        coder = qsae_core.load(place, registry=registry)
        if coder.shape[:2] == (8, 8):
            coder(x)
        coder.dictionary(quantized=False)

    def signed(place: pathlib.Path) -> None:
        """With checksums that fit what was changed: whoever means harm has them."""
        text = (place / "coder.json").read_bytes().decode("utf-8", "replace")
        for name in ("coder", "masters"):
            with contextlib.suppress(SafetensorError, OSError, ValueError):
                save_tensors(place / f"{name}.safetensors", load_file(place / f"{name}.safetensors"), text)

    for kind, blocks in kinds.items():
        coder_options = {"n_latents": 24, "normalize": "none"}
        tree = {
            **blocks,
            "sae": {**blocks["sae"], **coder_options},
            "data": {"use": "tensors", "path": "x.pt"},
        }
        tree |= {"sparsity": {"use": "topk", "k": 2}}
        config, place = resolve([Layer(tree, "here")], registry), folder / kind
        made = [compose_coder(config, registry, CoderShape(8, 8)).eval() for _ in range(2)]
        artifact.save(made[0], place, config, registry, {"model": "toy"}, masters=True)
        use(place)
        yield kind, place, [lambda place=place: use(place)], changed_files
        copy = folder / f"{kind}-signed"
        shutil.copytree(place, copy)
        again = functools.partial(changed_files, then=functools.partial(signed, copy))
        yield f"{kind}, signed", copy, [lambda place=copy: use(place)], again
    several, members = folder / "several", {str(n): coder for n, coder in enumerate(made)}
    save_set(CoderSet(members), several, config, registry, {name: {"model": "toy"} for name in members})
    load_set(several, registry=registry)
    yield "several", several, [lambda: load_set(several, registry=registry)], changed_files


TARGETS = {"FORMATS": format_targets, "ARTIFACTS": artifact_targets, "FIELDS": field_targets}


def main() -> None:
    what, inputs, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    import torch

    torch.set_num_threads(1)
    watched = Watched()
    signal.signal(signal.SIGALRM, _too_long)
    with tempfile.TemporaryDirectory() as folder:
        targets = list(TARGETS[what](pathlib.Path(folder)))
        reader = Reader(watched, folder)
        _limit_memory()
        for number, (name, path, calls, changed) in enumerate(targets):
            changes = changed(path, random.Random(f"{seed} {name}"))
            share = inputs // len(targets) + (number < inputs % len(targets))
            for change in itertools.islice(changes, share):
                reader.try_all(calls, f"{name}: {change}")
            changes.close()
    print(
        json.dumps(
            {**reader.counts, "slowest": reader.slowest, "targets": len(targets), "faults": reader.faults}
        )
    )


def _limit_memory() -> None:
    with open("/proc/self/statm") as file:
        data = int(file.read().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (data + SPARE, data + SPARE))


def _too_long(signum: int, frame: Any) -> None:
    raise TimeoutError(f"longer than {SECONDS} s")


if __name__ == "__main__":
    main()
