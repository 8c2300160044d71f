"""A coder into a repository, as one commit."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from qsae_core.runs import MEMBERS
from qsae_hub import card
from qsae_hub.address import Address
from qsae_hub.cache import contents, digest_of
from qsae_hub.errors import HubError, UnreachableError, hub_errors
from qsae_hub.fetching import DESCRIPTION, meant
from qsae_hub.known import Known, known
from qsae_hub.layout import CODER, PARTS, Local, size_of
from qsae_hub.names import matches
from qsae_hub.remote import FINAL, Listing, api, coders_among, list_files


@dataclass(frozen=True)
class Plan:
    """What a push would do."""

    address: Address
    before: Listing | None
    """What is there, or what a new branch begins with; None where the repository is still to be made, or the
    Hub could not be asked."""
    new_branch: bool
    """Whether the revision is still to be made."""
    files: dict[str, pathlib.Path | bytes]
    """Path in the repository -> what goes there, the card included."""
    unchanged: frozenset[str] = frozenset()
    """Those of them that the repository has already, as they are."""
    removed: tuple[str, ...] = ()
    """Files of another coder, whose place this one takes."""
    notes: tuple[str, ...] = field(default=())
    """Sentences for the user."""
    asked: bool = True
    """Whether the Hub said what is there."""

    @property
    def uploads(self) -> dict[str, pathlib.Path | bytes]:
        """What the repository has not."""
        return {path: content for path, content in self.files.items() if path not in self.unchanged}

    @property
    def bytes(self) -> int:
        """Of all that it has not."""
        return sum(map(size_of, self.uploads.values()))


def plan_push(
    local: Local,
    address: Address,
    *,
    private: bool,
    overwrite: bool,
    overwrite_card: bool,
    license: str | None,
    base_models: Sequence[str],
    dry_run: bool = False,
) -> Plan:
    """What pushing a coder to a folder of a repository takes; nothing is written yet.

    Args:
        dry_run: only to be shown, and so without a network too, as if nothing were there; a note says so.

    Raises:
        HubError: if another coder is there and ``overwrite`` is not given, or the repository is public and a
            private one is asked for; or, but for ``dry_run``, if the Hub cannot be reached.
    """
    before, new_branch, notes = _what_is_known(address, dry_run)
    asked = not notes
    _check_private(before, address, private)
    files = {address.within(name): content for name, content in local.files.items()}
    removed = _displaced(local, address, before, files, overwrite) if before else ()
    coders = [known(address.path, local.record, local.metrics, local.descriptions)]
    there = None
    if before is not None:
        coders = sorted([*coders, *_others(before, address.path)], key=lambda coder: coder.root)
        there = _text_of(before, card.FILE)
    if there is None or overwrite_card or card.stands_as_written(there):
        written = card.write_card(address, coders, license=license, base_models=base_models, before=there)
        files[card.FILE] = written.encode("utf-8")
    else:
        notes = (f"{card.FILE} was written or changed by hand, and stays; --overwrite-card writes it anew",)
    unchanged = frozenset(path for path in files if before and _is_same(before, path, files[path]))
    files = dict(sorted(files.items()))
    return Plan(address, before, new_branch, files, unchanged, removed, notes, asked)


def carry_out(plan: Plan, *, private: bool, message: str) -> str:
    """Make what is to be made, and commit; the address of the commit. There has to be something to upload.

    Raises:
        HubError: if the Hub refuses, or somebody else commits meanwhile.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    address, hub = plan.address, api()
    operations: list[Any] = [
        CommitOperationAdd(path, str(content) if isinstance(content, pathlib.Path) else content)
        for path, content in plan.uploads.items()
    ]
    operations += [CommitOperationDelete(path, is_folder=False) for path in plan.removed]
    try:
        with hub_errors(str(address)):
            if plan.before is None:
                hub.create_repo(address.repo, private=private or None)
            if plan.new_branch and address.revision is not None:
                start = plan.before.commit if plan.before else None
                hub.create_branch(address.repo, branch=address.revision, revision=start)
            done = hub.create_commit(
                address.repo,
                operations,
                commit_message=message,
                revision=address.revision,
                parent_commit=plan.before.commit if plan.before else None,
            )
    except (RuntimeError, ValueError) as error:  # an upload that broke off; a card that the Hub does not take
        cause = f": {error.__cause__}" if error.__cause__ else ""
        raise HubError(
            " ".join(f"{error}{cause}".split()),
            where=str(address),
            next="push again; what was uploaded is kept",
        ) from error
    return str(done.commit_url)


def _what_is_there(address: Address) -> tuple[Listing | None, bool]:
    """What a repository holds, if there is one; and whether its revision is new, which begins as ``main``."""
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        return list_files(address, whole=True), False
    except HubError as error:
        if isinstance(error.__cause__, RevisionNotFoundError):
            return list_files(Address(address.repo), whole=True), True
        if type(error.__cause__) is RepositoryNotFoundError:  # a gated one is another class, below it
            return None, address.revision not in (None, "main")
        raise


def _what_is_known(address: Address, dry_run: bool) -> tuple[Listing | None, bool, tuple[str, ...]]:
    """``_what_is_there``; or, of a dry run without a network, nothing, and a note that says why."""
    try:
        return *_what_is_there(address), ()
    except UnreachableError as error:
        if not dry_run:
            raise
        return None, False, (f"what is in {address.repo} already is not known: {error.what}",)


def _check_private(before: Listing | None, address: Address, private: bool) -> None:
    if private and before is not None and not before.private:
        raise HubError(
            "is public, and --private is for a repository that is made now",
            where=address.repo,
            next="make it private on its page on the Hub first, or leave out --private",
        )


def _displaced(
    local: Local,
    address: Address,
    before: Listing,
    files: dict[str, pathlib.Path | bytes],
    overwrite: bool,
) -> tuple[str, ...]:
    """Files of another coder at the same place that go, since this one has none of their names.

    Raises:
        HubError: if there is something else at the place, which nobody said is to be overwritten.
    """
    mark = next(name for name in (f"{FINAL}/{MEMBERS}", f"{FINAL}/{DESCRIPTION}") if name in local.files)
    if _is_same(before, address.within(mark), local.files[mark]):
        return ()
    coder = [path for path in before.files if _is_of_coder(address, path)]
    if address.path not in coders_among(before.files):
        coder = []
    taken = [path for path in files if path in before.files and not _is_same(before, path, files[path])]
    taken = list(dict.fromkeys([*taken, *coder]))
    if taken and not overwrite:
        raise HubError(
            f"holds another coder, or something else of the same names: {', '.join(taken[:3])}"
            + (f" and {len(taken) - 3} more" if len(taken) > 3 else ""),
            where=str(address),
            allowed="an empty folder of the repository: --path FOLDER",
            next="--overwrite puts this one in its place",
        )
    return tuple(path for path in coder if path not in files)


def _is_of_coder(address: Address, path: str) -> bool:
    own = address.below(path)
    patterns = (*CODER, *(pattern for part in PARTS.values() for pattern in part))
    return own is not None and matches(own, patterns)


def _is_same(before: Listing, path: str, content: pathlib.Path | bytes) -> bool:
    """Whether a repository has these bytes under a path."""
    there = before.files.get(path)
    return there is not None and digest_of(content, there.digest) == there.digest


def _others(before: Listing, own: str) -> list[Known]:
    """What is known of the other coders of a repository."""
    found = []
    for root in coders_among(before.files):
        if root == own:
            continue
        place = Address(before.address.repo, before.address.revision, root)
        single = place.within(f"{FINAL}/{DESCRIPTION}")
        stored = (
            [single] if single in before.files else meant(place, before.files, (f"{FINAL}/*/{DESCRIPTION}",))
        )
        descriptions = {
            "" if path == single else path.split("/")[-2]: _json_of(before, path) for path in stored
        }
        record, metrics = (_json_of(before, place.within(name)) for name in ("config.json", "metrics.json"))
        found.append(known(root, record, metrics, descriptions))
    return found


def _json_of(before: Listing, path: str) -> Any:
    """Of a file of the repository; None where there is none, or it is no JSON."""
    text = _text_of(before, path)
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return None


def _text_of(before: Listing, path: str) -> str | None:
    """Of a file of the repository; None where there is none."""
    if path not in before.files:
        return None
    return contents(before, [before.files[path]])[path].decode("utf-8", errors="replace")
