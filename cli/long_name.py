"""What a system says of a name that is too long for it, as an error for users. Imports no torch."""

from __future__ import annotations

import errno
import pathlib

from qsae_core.errors import ConfigError

SHOWN = 60
"""Characters of the name."""


def as_error(error: BaseException) -> ConfigError | None:
    """The error for users; None where this one is about something else."""
    if not isinstance(error, OSError) or error.errno != errno.ENAMETOOLONG:
        return None
    path = pathlib.Path(str(error.filename))
    longest = max(path.parts, key=lambda name: len(name.encode(errors="surrogateescape")), default="")
    return ConfigError(
        f"the name of a file or folder is too long ({len(longest.encode(errors='surrogateescape'))} bytes)",
        where=longest if len(longest) <= SHOWN else f"{longest[:SHOWN]}...",
        allowed="names of at most 255 bytes, and paths of at most 4095, on most systems",
        next="give a shorter --out, --name or path",
    )
