"""Conversations: which text a chat template makes of them, and where each message stands in it.

A template is a stranger's: transformers renders it in jinja's sandbox for untrusted code
(`ImmutableSandboxedEnvironment`), which cannot reach attributes with underscores, import, or change what it
is given. Nothing here needs torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from qsae_core.errors import DataError
from qsae_data_lm.corpus import Document
from qsae_data_lm.messages import Message, messages_of

OWN = "own"
"""The template that comes with the tokenizer."""
FIXED_DATE = "26 Jul 2024"
"""What templates that write today's date are given, so that a text is the same on every day."""

# characters for private use, in which no text is written
_OPEN, _CLOSE = "\ue0f0", "\ue0f1"
_PLACEHOLDER = re.compile(f"{_OPEN}(\\d+){_CLOSE}")


class ChatTemplate:
    """Makes documents of conversations.

    Args:
        tokenizer: of transformers.
        template: `own`, or the path of a jinja file.
        roles: whose messages count, separated by commas; `all`.

    Raises:
        DataError: if there is no such template, or the tokenizer does not say where its tokens stand.
    """

    def __init__(self, tokenizer: Any, template: str, roles: str) -> None:
        if not tokenizer.is_fast:
            raise _refused("the model's tokenizer does not say where in a text its tokens stand (it is slow)")
        self._tokenizer = tokenizer
        self._template = _template_text(tokenizer, template)
        self._roles = None if roles == "all" else frozenset(roles.split(","))
        self._options = {"date_string": FIXED_DATE} if "date_string" in self._template else {}
        if "strftime_now" in self._template and not self._options:
            raise _refused(
                "the chat template writes today's date, so that a run would not go on with the text it began",
                "replace strftime_now(...) by a date in a copy of it, and give that as --chat-template FILE",
            )
        self.opens_with_bos = False
        """Whether conversations begin with BOS, which is then left to the frame of a context."""

    def look_at(self, rows: Iterable[tuple[str, Any]]) -> None:
        """See from a dataset's first conversations, (where, value) each, how they begin, and that somebody
        speaks in each of the roles that count; no further than that needs.

        Raises:
            DataError: if nobody does.
        """
        found: set[str] = set()
        n_rows, wanted = 0, self._roles or frozenset()
        for where, value in rows:
            n_rows += 1
            messages = messages_of(value, where)
            if messages and not found and self._tokenizer.bos_token:
                self.opens_with_bos = self._rendered(messages, where).startswith(self._tokenizer.bos_token)
            found |= {message.role for message in messages}
            if found and wanted <= found:
                return
        if absent := sorted(wanted - found):
            raise DataError(
                f"no message of the first {n_rows} conversations has the role {absent[0]!r}",
                where="data.roles",
                allowed=f"all, or some of: {', '.join(sorted(found)) or 'none, for there is no message'}",
            )

    def document(self, value: Any, where: str) -> Document | None:
        """The text of a conversation, with the spans of what counts; None where it has no message.

        Its key is made of roles and contents, so that it is on one side of the split under every template.

        Raises:
            DataError: with row and message, if the value is no conversation, or the template does not render
                it so that each message can be found.
        """
        messages = messages_of(value, where)
        if not messages:
            return None
        key = json.dumps([[m.role, m.content] for m in messages], ensure_ascii=False)
        text, spans = self._rendered_with_spans(messages, where)
        if self.opens_with_bos and text.startswith(self._tokenizer.bos_token):
            cut = len(self._tokenizer.bos_token)
            text, spans = text[cut:], [(start - cut, end - cut) for start, end in spans]
        return Document(key, text, tuple(spans)) if text else None

    def _rendered_with_spans(
        self, messages: Sequence[Message], where: str
    ) -> tuple[str, list[tuple[int, int]]]:
        """Renders the messages, and again with a placeholder for each content: what stands around these is
        the template's, and the rest has to be the contents, whole or stripped."""
        text = self._rendered(messages, where)
        marked = [
            m._replace(content=f"{_OPEN}{n}{_CLOSE}") if m.content else m for n, m in enumerate(messages)
        ]
        pieces = _PLACEHOLDER.split(self._rendered(marked, where))
        literals, numbers = pieces[::2], [int(n) for n in pieces[1::2]]
        for n, message in enumerate(messages):
            if message.content.strip() and n not in numbers:
                raise _not_found(where, n, message, "it leaves it out")
        spans = find_contents(text, literals, [messages[n].content for n in numbers])
        if isinstance(spans, int):
            n = numbers[spans]
            raise _not_found(where, n, messages[n], "it changes it")
        return text, [
            span
            for span, n in zip(spans, numbers, strict=True)
            if (self._roles is None or messages[n].role in self._roles) and span[0] < span[1]
        ]

    def _rendered(self, messages: Sequence[Message], where: str) -> str:
        chat = [{**m.rest, "role": m.role, "content": m.content} for m in messages]
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    chat, chat_template=self._template, tokenize=False, **self._options
                )
            )
        except Exception as error:  # a template raises what it likes
            raise DataError(
                f"the chat template does not render this conversation: {' '.join(str(error).split())}",
                where=where,
                allowed="conversations such as the template was written for",
                next="give another template with --chat-template FILE, or leave the row out",
            ) from error


def find_contents(text: str, literals: Sequence[str], contents: Sequence[str]) -> list[tuple[int, int]] | int:
    """Where the contents stand in a text that is literal, content, literal, ..., content, literal.

    Args:
        literals: one more than contents.
        contents: each may have lost the white space at its beginning, its end, or both.

    Returns:
        their spans; or, where the text is not of that form, the first content that does not fit.
    """
    if not contents:
        return []
    steps: list[dict[int, tuple[int, int]]] = []  # behind a content -> (its start, behind the one before)
    reached = [0] if text.startswith(literals[0]) else []
    for n, content in enumerate(contents):
        found: dict[int, tuple[int, int]] = {}
        last = n + 1 == len(contents)
        for behind in reached:
            start = behind + len(literals[n])
            for form in (content, content.strip(), content.lstrip(), content.rstrip()):
                end = start + len(form)
                rest = text[end:] == literals[-1] if last else text.startswith(literals[n + 1], end)
                if rest and text.startswith(form, start):
                    found.setdefault(end, (start, behind))
        if not found:
            return n
        steps.append(found)
        reached = list(found)
    spans, behind = [], reached[0]
    for found in reversed(steps):
        start, before = found[behind]
        spans.append((start, behind))
        behind = before
    return spans[::-1]


def _template_text(tokenizer: Any, template: str) -> str:
    if template != OWN:
        path = Path(template).expanduser()
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise _refused(f"the template {path} cannot be read: {error}") from error
    try:
        return str(tokenizer.get_chat_template())
    except ValueError as error:
        why = str(error).partition(". ")[0].partition("! ")[0]
        raise _refused(f"the model's tokenizer has no chat template: {why}") from error


def _refused(what: str, next_step: str = "give a jinja file with --chat-template FILE") -> DataError:
    return DataError(
        what, where="data.chat_template", allowed=f"{OWN}, or the path of a jinja file", next=next_step
    )


def _not_found(where: str, number: int, message: Message, how: str) -> DataError:
    return DataError(
        f"the chat template does not show which text is whose: of message {number} ({message.role}), {how}",
        where=where,
        allowed="a template that writes each message's content as it is, or without the space around it",
        next="give such a template with --chat-template FILE, or leave the row out; messages count from 0",
    )
