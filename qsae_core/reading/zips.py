"""Zip files of strangers: where the bytes of their entries are. Imports no torch."""

from __future__ import annotations

import pathlib
import struct
import zipfile
from typing import NamedTuple

from qsae_core.errors import ArtifactError
from qsae_core.reading.files import the_file

LOCAL_HEADER = struct.Struct("<4s5H3I2H")
MOST_ENTRIES = 100_000


class Entry(NamedTuple):
    """The bytes of one entry, as they stand in the file."""

    start: int
    size: int
    """Bytes in the file."""
    whole: int
    """Bytes of its contents: ``size``, but of compressed ones."""

    @property
    def is_stored(self) -> bool:
        """Whether they are the contents themselves."""
        return self.size == self.whole


def zip_entries(path: pathlib.Path, *, compressed: bool = False) -> dict[str, Entry]:
    """Name -> where its bytes are; names are only names.

    Args:
        compressed: let deflated entries be.

    Raises:
        ArtifactError: if it is no zip, it is encrypted or compressed in another way, entries overlap or lie
            outside the file, or two have one name.
    """
    allowed = "a zip file as the library wrote it"
    try:
        with the_file(path).open("rb") as file, zipfile.ZipFile(file) as archive:
            length = file.seek(0, 2)
            found: dict[str, Entry] = {}
            if len(archive.infolist()) > MOST_ENTRIES:
                raise ValueError(f"it has more than {MOST_ENTRIES:,} entries")
            for info in archive.infolist():
                known = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)[: 1 + compressed]
                if info.flag_bits & 1 or info.compress_type not in known:
                    raise ValueError(f"{info.filename} is encrypted, or compressed in a way not read here")
                file.seek(info.header_offset)
                header = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
                start = info.header_offset + LOCAL_HEADER.size + header[-2] + header[-1]
                entry = Entry(start, info.compress_size, info.file_size)
                is_stored = info.compress_type == zipfile.ZIP_STORED
                if header[0] != b"PK\x03\x04" or start + entry.size > length:
                    raise ValueError(f"{info.filename} does not lie within the file")
                if is_stored and not entry.is_stored:
                    raise ValueError(f"{info.filename} has two sizes")
                if info.filename in found:
                    raise ValueError(f"two entries are called {info.filename}")
                found[info.filename] = entry
            _check_apart(found)
            return found
    except (OSError, ValueError, zipfile.BadZipFile, struct.error, NotImplementedError) as error:
        what = " ".join(str(error).split())[:200]
        raise ArtifactError(f"cannot be read ({what})", where=str(path), allowed=allowed) from error


def _check_apart(entries: dict[str, Entry]) -> None:
    """Zip bombs have entries that share their bytes."""
    end, before = 0, ""
    for name, entry in sorted(entries.items(), key=lambda item: item[1].start):
        if entry.start < end:
            raise ValueError(f"{before} and {name} share bytes")
        end, before = entry.start + entry.size, name
