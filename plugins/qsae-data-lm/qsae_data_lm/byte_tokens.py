"""Tokens that are bytes of a character, from how vocabularies spell them."""

from __future__ import annotations

import itertools
import re

HEXADECIMAL = re.compile(r"<0x([0-9A-F]{2})>")
"""A byte in a vocabulary of SentencePiece."""
BROKEN = "\N{REPLACEMENT CHARACTER}"


def _alphabet() -> dict[str, int]:
    """Character -> byte: bytes that are printed in Latin-1 stand for themselves, the others for characters
    from 256 on (GPT-2; Radford et al., 2019)."""
    printed = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = zip(itertools.count(256), (byte for byte in range(256) if byte not in printed), strict=False)
    return {chr(byte): byte for byte in printed} | {chr(character): byte for character, byte in others}


ALPHABET = _alphabet()


def spelled_bytes(spelling: str, text: str) -> bytes | None:
    """The bytes of a token that is not whole characters; None of others, and where its spelling is not known.

    Args:
        spelling: of the vocabulary: ``âĤ`` or ``<0xE2>``.
        text: what the token decodes to by itself.
    """
    if BROKEN not in text:
        return None
    byte = HEXADECIMAL.fullmatch(spelling)
    if byte is not None:
        found = bytes.fromhex(byte[1])
    elif all(character in ALPHABET for character in spelling):
        found = bytes(ALPHABET[character] for character in spelling)
    else:
        return None
    return found if found.decode("utf-8", "replace") == text else None
