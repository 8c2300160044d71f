"""What a coder asks for its parts, one for each matrix or group of latents; it keeps them, so they pickle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from qsae_core.config.run import Block
from qsae_core.errors import QsaeError


@dataclass(frozen=True)
class PartFactory:
    """Builds parts of one slot.

    Attributes:
        slot: such as ``quantizer``.
        block: the component and its options.
        target: its class.
        origins: key -> where its value comes from, for errors.
    """

    slot: str
    block: Block
    target: type[Any]
    origins: Mapping[str, str]

    def __call__(self, size: Any) -> Any:
        """A part for a matrix, or for so many latents."""
        with located((self.slot,), self.block, self.origins):
            part = self.target(self.block.options, size)
        part.component_name = self.block.use  # for messages: ``name_of``
        return part


@dataclass(frozen=True)
class NoParts:
    """Stands for a slot that a coder says it does not have.

    Attributes:
        slot: which.
        coder: ``sae 'topk'``.
    """

    slot: str
    coder: str

    def __call__(self, size: Any) -> NoReturn:
        """Raises AssertionError: the coder asks for it all the same."""
        raise AssertionError(f"{self.coder} says that it has no {self.slot}, and asks for one")


@contextmanager
def located(path: tuple[str, ...], block: Block, origins: Mapping[str, str]) -> Iterator[None]:
    """Add the place to an error of a constructor: ``where`` may be the name of one of its own options."""
    try:
        yield
    except QsaeError as error:
        options = type(block.options).model_fields
        if error.where in options:
            key = ".".join((*path, str(error.where)))
            error.where = origins.get(key, key)
        elif error.where is None:
            error.where = f"{path[0]} '{block.use}'"
        raise
