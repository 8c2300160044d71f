"""What the Hub and the way to it refuse, as errors that say what, where and what next."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from qsae_core.errors import QsaeError, UnwritableError

LOG_IN = "hf auth login, or set HF_TOKEN to a token of https://huggingface.co/settings/tokens"
AGAIN = "run the same command again: what is complete is kept, and what was begun goes on"
OFFLINE = "HF_HUB_OFFLINE=1 uses what was fetched before"


class HubError(QsaeError):
    """What is not on the Hub, cannot be had of it, or may not be written there."""


class UnreachableError(HubError):
    """There is no Hub to ask: no network, or ``HF_HUB_OFFLINE``."""


@contextlib.contextmanager
def hub_errors(where: str) -> Iterator[None]:
    """A block that speaks with the Hub about something.

    Raises:
        HubError: for what the Hub or huggingface_hub refuse; of the network an UnreachableError.
        UnwritableError: where the disk is full.
    """
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    # huggingface_hub 1 speaks through httpx, 2 through httpx2; its own error is one of theirs
    bases: tuple[type[BaseException], ...] = tuple(
        base for base in HfHubHTTPError.__mro__ if issubclass(base, Exception)
    )
    network = next(base for base in bases if base.__name__ == "HTTPError")
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise UnreachableError(
            "HF_HUB_OFFLINE is set, and this needs the Hub", where=where, next="unset it"
        ) from error
    except HFValidationError as error:
        raise HubError(f"is refused by huggingface_hub: {error}", where=where) from error
    except HfHubHTTPError as error:
        raise _of_status(error, where) from error
    except network as error:
        raise UnreachableError(
            f"the Hub at {endpoint()} cannot be reached, or broke off ({type(error).__name__}: {error})",
            where=where,
            next=f"{AGAIN}; {OFFLINE}",
        ) from error
    except OSError as error:
        raise _of_system(error, where) from error


@contextlib.contextmanager
def pushing() -> Iterator[None]:
    """A block that asks the Hub in order to write there, for which nothing that was fetched before can stand.

    Raises:
        UnreachableError: in place of one that proposes that.
    """
    try:
        yield
    except UnreachableError as error:
        error.next = error.next and error.next.removesuffix(f"; {OFFLINE}")
        raise


def endpoint() -> str:
    """The Hub's own address."""
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def _of_status(error: Exception, where: str) -> HubError:
    """Of an answer that is no success."""
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        repo = where.removeprefix("hf://").split("@")[0]
        page = "/".join([endpoint(), *repo.split("/")[:2]])
        return HubError(
            "is gated: whoever wants it asks its owners first",
            where=where,
            next=f"ask for access at {page}, then {LOG_IN}",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return HubError("has no such revision", where=where, allowed="a branch, a tag or a commit of it")
    if isinstance(error, errors.RepositoryNotFoundError):
        return HubError(
            f"there is no such repository at {endpoint()}, or it is private and you may not see it",
            where=where,
            next=f"look at its name; of a private one: {LOG_IN}",
        )
    if isinstance(error, errors.EntryNotFoundError):
        return HubError("has no such file or folder", where=where)
    return _of_other_status(error, status, where)


def _of_other_status(error: Exception, status: int | None, where: str) -> HubError:
    message = " ".join((getattr(error, "server_message", None) or str(error)).split())[:300]
    if status == 401:
        return HubError(f"your token is not accepted ({message})", where=where, next=LOG_IN)
    if status == 403:
        return HubError(
            f"your token may not do this ({message})",
            where=where,
            next="take a token that may write to this repository: https://huggingface.co/settings/tokens",
        )
    if status in (409, 412):
        return HubError(f"somebody else has changed it meanwhile ({message})", where=where, next="push again")
    if status == 429:
        return HubError("the Hub asks to wait: too many requests", where=where, next=f"in a while, {AGAIN}")
    if status is not None and status >= 500:
        return HubError(f"the Hub is out of order ({status}: {message})", where=where, next=AGAIN)
    return HubError(f"the Hub refuses ({message})", where=where)


def _of_system(error: OSError, where: str) -> QsaeError:
    """Of the disk, or of a download that ended early."""
    from qsae_core.runs import is_full

    if is_full(error):
        from huggingface_hub import constants

        return UnwritableError(
            "the disk is full",
            where=str(constants.HF_HUB_CACHE),
            next=f"free some space, or set HF_HOME to a folder elsewhere; then {AGAIN}",
        )
    if "Consistency check failed" in str(error):
        return HubError("a file ended early", where=where, next=AGAIN)
    return HubError(f"{type(error).__name__}: {error}", where=where, next=AGAIN)
