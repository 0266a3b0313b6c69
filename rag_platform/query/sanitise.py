"""Takes out of a model's text what could load something, or lead to an address that the passages do not name.

A document that an attacker wrote can make a model write an image or a link whose address carries away what
the model has read. So images never pass, and an address passes only when it stands, to the character, in a
passage. The result depends on the whole text alone: fed in pieces of any size, a ``Sanitiser`` returns the
same characters as ``sanitise`` of all of it. What is taken out leaves a gap that nothing can close again.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

from rag_platform.query.passage import Passage

REMOVED = "(link removed)"

_MAX_LABEL = 400
_MAX_TARGET = 2000
_MAX_DEPTH = 4
_BREAKS = r"\s<>\"'`|^{}\[\]!，。、；：！？（）「」『』”“’»«"
_WORD = re.compile(rf"[^{_BREAKS}]+")
_URL = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]{0,20})?://|^//[\w-]+\.\w|www\.", re.I)
_TRAILING = ".,;:?)*_~\\"
_TAG_NAME = re.compile(r"/?([A-Za-z][A-Za-z0-9-]*)(?=[\s/]|$)")
_LOADS_OR_LEADS = re.compile(
    "a|applet|area|audio|base|body|button|embed|form|frame|frameset|head|html|iframe|img|input|link|map|marquee|math"
    "|meta|object|picture|portal|script|select|source|style|svg|textarea|track|video"
)
_THOUGHTS = ("think", "thinking")
"""Elements in which some models think aloud before they answer."""


def addresses(passages: Iterable[Passage]) -> frozenset[str]:
    """Return the addresses that an answer may name: those in the passages' texts, and their own."""
    found: set[str] = set()
    for passage in passages:
        for word in (passage.hit.uri, *_WORD.findall(passage.text)):
            match = _URL.search(word)
            if match:
                found.update(_forms(word[match.start() :]))
    return frozenset(found)


def sanitise(text: str, allowed: frozenset[str] = frozenset()) -> str:
    """Return ``text`` without images, without HTML that loads or leads somewhere, and with links only to
    ``allowed`` addresses; a foreign link keeps its label, a bare foreign address becomes ``REMOVED``."""
    sanitiser = Sanitiser(allowed)
    return sanitiser.feed(text) + sanitiser.finish()


class Sanitiser:
    """``sanitise`` for a text that arrives in pieces: holds back what may still become a link."""

    def __init__(self, allowed: frozenset[str] = frozenset()) -> None:
        self._allowed = allowed
        self._held = ""
        self._out: list[str] = []
        self._last = ""  # the last character let through
        self._gap = False  # whether something was taken out behind it
        self._begun = False

    def feed(self, text: str) -> str:
        """Take a piece; return what is safe by now."""
        return self._drain(self._held + text, final=False)

    def finish(self) -> str:
        """Return the rest."""
        return self._drain(self._held, final=True)

    def _drain(self, text: str, *, final: bool) -> str:
        at = 0
        while at < len(text):
            word = _WORD.match(text, at)
            if word is not None:
                after = self._word(word, final or word.end() < len(text))
            elif text[at] in "![":
                after = self._link(text, at, final)
            elif text[at] == "<":
                after = self._tag(text, at, final)
            else:
                after = self._put(text[at], at + 1)
            if after is None:
                break
            at = after
        self._held = text[at:]
        done, self._out = "".join(self._out), []
        return done

    def _put(self, piece: str, after: int) -> int:
        """Let ``piece`` through; return ``after``."""
        if piece:
            joins = self._last not in ("", " ", "\n", "\t") and not piece[0].isspace()
            if joins and (
                (self._last == "]" and piece[0] in "(:")  # would make a link, or a link's definition
                or (self._gap and (piece[0] in "[<" or any(c.isalnum() for c in piece)))
            ):
                self._out.append(" ")
            self._out.append(piece)
            self._last, self._gap = piece[-1], False
            self._begun = self._begun or not piece.isspace()
        return after

    def _word(self, match: re.Match[str], whole: bool) -> int | None:
        if not whole:
            return None
        word = match.group()
        found = _URL.search(word)
        if found is None:
            hidden = "&" in word or "\\" in word
            if hidden and _URL.search(html.unescape(word).replace("\\", "")):
                word = REMOVED
            return self._put(word, match.end())
        self._put(word[: found.start()], 0)
        address = word[found.start() :]
        known = next((form for form in _forms(address) if form in self._allowed), None)
        self._put(REMOVED if known is None else known, 0)
        rest = address[len(address.rstrip(_TRAILING) if known is None else known) :]
        return self._put(rest, match.end())

    def _link(self, text: str, at: int, final: bool) -> int | None:
        """Handle ``[label](target)`` and ``![label](target)``."""
        image = text[at] == "!"
        opening = at + image
        if opening == len(text) and not final:
            return None
        if not text.startswith("[", opening):
            return self._put("!", at + 1)
        closing = _closing(text, opening, "]", _MAX_LABEL, final)
        if closing is None or (closing + 1 == len(text) and not final):
            return None
        if closing < 0 or not text.startswith("(", closing + 1):
            return self._put(text[at], at + 1)
        end = _closing(text, closing + 1, ")", _MAX_TARGET, final)
        if end is None:
            return None
        if end < 0:
            return self._put(text[at], at + 1)
        label = sanitise(text[opening + 1 : closing], self._allowed)
        target = (text[closing + 2 : end].split() or [""])[0].strip("<>")
        if label.isdecimal():
            self._put(f"[{label}]", 0)  # a citation
        elif not image and target in self._allowed and not set("()") & set(target):
            self._put(f"[{label}]({target})", 0)
        else:
            self._gap = True
            self._put(label, 0)
        self._gap = True
        return end + 1

    def _tag(self, text: str, at: int, final: bool) -> int | None:
        """Handle ``<…>``: keep what is no tag, or one that can do nothing."""
        if at + 1 == len(text):
            return self._put("<", at + 1) if final else None
        if not (text[at + 1].isascii() and text[at + 1].isalpha()) and text[at + 1] not in "/!?":
            return self._put("<", at + 1)
        end = _closing(text, at, ">", _MAX_TARGET, final)
        if end is None:
            return None
        inner = text[at + 1 : max(end, at + 1)]
        found = _TAG_NAME.match(inner)
        name = found.group(1).lower() if found else ""
        if end >= 0 and name in _THOUGHTS and not self._begun:
            thought = text.find(f"</{name}>", end)
            if thought >= 0:
                return thought + len(name) + 3
            return len(text) if final else None
        if end >= 0 and (_LOADS_OR_LEADS.fullmatch(name) or (name and "=" in inner) or inner[0] in "!?"):
            self._gap = True
            return end + 1
        if end < 0 or "=" in inner or ":" in inner or "/" in inner.strip("/") or _URL.search(inner):
            self._put("<", 0)
            return self._put(" ", at + 1)  # no tag may begin here
        return self._put(text[at : end + 1], end + 1)


def _forms(address: str) -> list[str]:
    """Return the address with less and less of the punctuation behind it, each with and without a last slash."""
    forms: list[str] = []
    while address:
        forms += [address, address.rstrip("/"), address + "/"]
        if address[-1] not in _TRAILING:
            break
        address = address[:-1]
    return forms


_MARKS = {c: re.compile(rf"[{re.escape(o + c)}\\]|\n\s*\n") for o, c in (("[", "]"), ("(", ")"), ("<", ">"))}


def _closing(text: str, opening: int, closer: str, limit: int, final: bool) -> int | None:
    """Return where the bracket at ``opening`` is closed; -1: nowhere near, None: not known yet. The limits keep
    a text of nothing but brackets from taking quadratic time."""
    depth, at, stop = 0, opening, min(len(text), opening + limit)
    while (mark := _MARKS[closer].search(text, at, stop)) is not None:
        at = mark.end()
        if mark.group() == "\\":
            at += 1
        elif mark.group() == closer:
            depth -= 1
            if depth == 0:
                return mark.start()
        elif mark.group()[0] == "\n" or depth == (1 if closer == ">" else _MAX_DEPTH):
            return -1
        else:
            depth += 1
    return -1 if final or len(text) >= opening + limit else None
