"""Whether the Hugging Face Hub can be asked for a model, found out by one question.

Its library asks six times for a file that is not on the machine, half a minute long, and longer where a
network swallows what is sent.
"""

from __future__ import annotations

import functools
import time

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError

from qsae_data_lm.places import Place

KEPT = 60.0
"""Seconds for which an answer holds."""
# huggingface_hub 1 speaks through httpx, 2 through httpx2; its own error is one of theirs
_BASES: tuple[type[Exception], ...] = tuple(b for b in HfHubHTTPError.__mro__ if issubclass(b, Exception))
_NETWORK = next(base for base in _BASES if base.__name__ == "HTTPError")


def unreachable(place: Place) -> str | None:
    """Why the Hub cannot be asked for a model now; None where it can, or need not be: of a folder, or with
    ``HF_HUB_OFFLINE``.

    It is waited for as long as ``HF_HUB_ETAG_TIMEOUT`` says, 10 seconds otherwise.
    """
    if place.is_local or constants.HF_HUB_OFFLINE:
        return None
    return _asked(place.path, place.revision, int(time.monotonic() / KEPT))


def hub_options(place: Place) -> dict[str, bool]:
    """Arguments with which transformers takes what is on the machine alone, where the Hub cannot be asked."""
    return {} if unreachable(place) is None else {"local_files_only": True}


@functools.lru_cache(maxsize=64)
def _asked(repo: str, revision: str | None, now: int) -> str | None:
    try:
        url = hf_hub_url(repo, constants.CONFIG_NAME, revision=revision)
        get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except HfHubHTTPError:
        return None  # an answer, of which loading says what it means
    except _NETWORK as error:
        return f"{constants.ENDPOINT} cannot be reached ({type(error).__name__}: {error})"
    except (OSError, ValueError):
        return None
    return None
