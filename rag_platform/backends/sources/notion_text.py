"""Notion's rich text as Markdown."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any

SITE = "https://www.notion.so"

_MARKS = (("strikethrough", "~~"), ("italic", "*"), ("bold", "**"))
_BLOCK_MARK = re.compile(
    r"^([ \t]*)(#{1,6}(?=\s)|[-+*>](?=\s)|\d{1,9}[.)](?=\s)|`{3,}|~{3,}|\||[-=_*]{3,}(?=[ \t]*$))", re.MULTILINE
)


def page_address(id_: str) -> str:
    """Return the address at which a person opens a page or database."""
    return f"{SITE}/{id_.replace('-', '')}"


def plain(spans: Iterable[Mapping[str, Any]] | None) -> str:
    """Return the words only."""
    return "".join(str(span.get("plain_text") or "") for span in spans or ())


def markdown(spans: Iterable[Mapping[str, Any]] | None) -> str:
    """Return Markdown; what would begin a block of another kind at the start of a line is escaped."""
    pieces = []
    for (link, marks, code, formula), group in itertools.groupby(spans or (), _style):
        text = "".join(_words(span) for span in group)
        pieces.append(_styled(text, link, marks, code, formula))
    return _BLOCK_MARK.sub(r"\1\\\2", "".join(pieces)).replace("<!--", "&lt;!--")


def link(text: str, target: str) -> str:
    """Return a Markdown link, its text on one line."""
    shown = " ".join(text.split()).replace("[", r"\[").replace("]", r"\]")
    return f"[{shown}]({target.replace(' ', '%20').replace(')', '%29')})" if target else shown


def _style(span: Mapping[str, Any]) -> tuple[str, tuple[str, ...], bool, bool]:
    annotations = span.get("annotations") or {}
    target = str(span.get("href") or "")
    if target.startswith("/"):
        target = SITE + target
    marks = tuple(mark for name, mark in _MARKS if annotations.get(name))
    return target, marks, bool(annotations.get("code")), span.get("type") == "equation"


def _words(span: Mapping[str, Any]) -> str:
    if span.get("type") == "equation":
        return str((span.get("equation") or {}).get("expression") or span.get("plain_text") or "")
    return str(span.get("plain_text") or "")


def _styled(text: str, target: str, marks: tuple[str, ...], code: bool, formula: bool) -> str:
    core = text.strip()
    if not core:
        return text
    shown = core
    if formula:
        shown = f"${core}$"
    elif code:
        fence = "``" if "`" in core else "`"
        shown = f"{fence}{core}{fence}"
    if target and target != core:
        shown = f"[{shown}]({target.replace(' ', '%20').replace(')', '%29')})"
    for mark in marks:
        shown = f"{mark}{shown}{mark}"
    at = text.index(core)  # marks must touch the words, so white space stays outside
    return text[:at] + shown + text[at + len(core) :]
