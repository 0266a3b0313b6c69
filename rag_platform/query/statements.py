"""What of a passage can be quoted as an answer: sentences, list items, table rows, code; not headings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rag_platform.query import sentences
from rag_platform.query.passage import Passage
from rag_platform.query.sentences import LineKind, line_kind

MAX_QUOTE = 420
"""Characters of a quote that holds more than its sentence: an introduced list, the sentence before."""
HEADER_REACH = 120
"""Characters from a table's header to a row that is still quoted together with it."""

_TAG = re.compile(r"</?[a-zA-Z][^<>\n]{0,200}>")
_SHORTCODE = re.compile(r"\{\{[<%][^{}\n]*?(?:\btext=\"([^\"\n]{0,100})\"[^{}\n]{0,200})?[%>]\}\}")
_LINK = re.compile(r"!?\[([^\[\]\n]{0,300})\]\([^()\n]{0,500}\)")
_ESCAPE = re.compile(r"\\([\\`*_{}\[\]()#+\-.!|<>~\"'$&/:;?])")
_MARK = re.compile(
    r"\*{1,3}(?=\S)|(?<=\S)\*{1,3}|(?<!\w)_{1,3}(?=\S)|(?<=\S)_{1,3}(?!\w)|`{1,3}|~~|[|]+|^[ \t]*(?:#{1,6}|>)[ \t]+",
    re.MULTILINE,
)
_ONLY_LINKS = re.compile(r"\W*(?:!?\[[^\[\]\n]{0,300}\]\([^()\n]{0,500}\)[^\w\[]*)+")
_LABEL = re.compile(r"(?:notes?|important|warning|tip|caution|examples?|hint|info)\b.{0,3}", re.I)
"""A bold line that says what kind of remark follows and not what it is about."""
_BOLD_LINE = re.compile(r"\*\*[^*\n]{1,120}\*\*:?|__[^_\n]{1,120}__:?")
_ENDED = re.compile(r"[.!?…:;,。！？；：，؟।][\"'”’»)\]*_`]{0,4}$")
_REFERS_BACK = re.compile(
    r"(?:it|its|they|them|their|he|his|him|she|her|this|these|that|those|such|both|here|there|otherwise|then|else)\b",
    re.I,
)


@dataclass(frozen=True, slots=True)
class Statement:
    """Something that could be quoted: ``passage.text[start:end]``, which begins at ``own`` and is preceded by
    what it cannot be read without (the sentence that "it" refers to, a table's header, the line before a list).

    Attributes:
        passage: index into the passages.
        text: the statement itself without markup, as it is compared with the question.
        context: what it stands below, without markup: a heading, the line before a list, a table's header.
        only_links: nothing but links to other pages.
    """

    passage: int
    start: int
    own: int
    end: int
    text: str
    context: str
    only_links: bool


def unescaped(text: str) -> str:
    """Return ``text`` without the backslashes that keep Markdown from reading a mark."""
    return _ESCAPE.sub(r"\1", text)


def plain(text: str) -> str:
    """Return ``text`` without Markdown and HTML markup, on one line."""
    text = _TAG.sub(" ", _SHORTCODE.sub(r" \1 ", text))
    text = _LINK.sub(r"\1", text)
    text = unescaped(text)
    return " ".join(_MARK.sub(" " if "|" in text else "", text).split())


def statements(passages: Sequence[Passage]) -> list[Statement]:
    """Return all statements of the passages, in the order of the text. A passage of headings only has none."""
    return [statement for index, passage in enumerate(passages) for statement in _Reader(index, passage).read()]


class _Reader:
    """Reads one passage from top to bottom."""

    def __init__(self, index: int, passage: Passage) -> None:
        self._index, self._text = index, passage.text
        self._spans = sentences.split(passage.text)
        self._kinds = [line_kind(self._text[a:b].partition("\n")[0]) for a, b in self._spans]
        self._heading = plain(passage.hit.heading_path.split(" › ")[-1]) or plain(passage.hit.title)

    def read(self) -> list[Statement]:
        found: list[Statement] = []
        before: int | None = None  # start of a table's header or of the line that introduces a list
        short: int | None = None  # start of a "No." that belongs to what comes next
        for n, (start, end) in enumerate(self._spans):
            kind = self._kinds[n]
            if kind not in ("item", "row", "rule", "fence"):
                before = None
            if self._is_heading(n):
                self._heading, short = self._named(plain(self._text[start:end])), None
                continue
            if kind == "rule" or (kind == "fence" and "\n" not in self._text[start:end]):
                continue
            if kind == "row" and self._kind(n - 1) not in ("row", "rule"):
                before = start
                if self._kind(n + 1) == "rule":
                    continue
                if n == 0 or self._kind(n + 1) != "row":
                    before = None  # a table's last rows, or no table
            if self._is_short(n):
                short = start if short is None else short
                continue
            found.append(self._statement(n, short, before))
            short = None
            if kind in ("text", "item") and self._introduces(n):
                before = start
        if short is not None:
            found.append(self._made(short, short, self._spans[-1][1]))
        return found

    def _kind(self, n: int) -> LineKind:
        return self._kinds[n] if 0 <= n < len(self._kinds) else "blank"

    def _is_heading(self, n: int) -> bool:
        """By its mark, or a short line without a full stop that stands by itself above other text."""
        if self._kinds[n] != "text":
            return self._kinds[n] == "heading"
        start, end = self._spans[n]
        piece = self._text[start:end]
        alone = (start == 0 or self._text[:start].endswith("\n")) and self._text[end : end + 1] in ("\n", "")
        if not alone or "\n" in piece or n + 1 == len(self._spans):
            return False
        if _BOLD_LINE.fullmatch(piece):
            return True
        return (
            len(piece) <= 80
            and ": " not in piece
            and not _ENDED.search(piece)
            and (self._text[end : end + 2] == "\n\n" or self._kinds[n + 1] == "rule")
        )

    def _named(self, heading: str) -> str:
        return self._heading if _LABEL.fullmatch(heading) else heading

    def _is_short(self, n: int) -> bool:
        """A "Yes." or "Note:" that goes on in the next sentence."""
        start, end = self._spans[n]
        return (
            self._kinds[n] == "text"
            and self._kind(n + 1) == "text"
            and len(plain(self._text[start:end]).split()) < 3
            and self._text[start:end].isascii()  # words of unspaced scripts cannot be counted
            and "\n\n" not in self._text[end : self._spans[n + 1][0]]
        )

    def _introduces(self, n: int) -> bool:
        return self._text[slice(*self._spans[n])].rstrip("*_ ").endswith((":", "："))

    def _statement(self, n: int, short: int | None, before: int | None) -> Statement:
        start, end = self._spans[n]
        kind = self._kinds[n]
        own = start + sentences.item_marker(self._text[start:end]) if kind == "item" else start
        own = own if short is None else short
        first = own
        if before is not None and end - before <= MAX_QUOTE and (kind == "item" or own - before <= HEADER_REACH):
            first = before + sentences.item_marker(self._text[before:own])
        elif short is None and n and self._kinds[n - 1] in ("text", "item") and kind == "text":
            earlier = self._spans[n - 1][0]
            if (
                _REFERS_BACK.match(plain(self._text[start : start + 40]))
                and end - earlier <= MAX_QUOTE
                and "\n\n" not in self._text[earlier:start]
                and not self._is_heading(n - 1)
            ):
                first = earlier + sentences.item_marker(self._text[earlier:start])
        if self._introduces(n):
            end = self._end_of_list(n)
        above = "" if before is None or before >= own else plain(self._text[before:].partition("\n")[0])
        return self._made(first, own, end, above)

    def _end_of_list(self, n: int) -> int:
        """Return the end of the last item, row or code block that follows and still makes a quote."""
        start, end = self._spans[n]
        level = self._kinds[n]
        for following in range(n + 1, len(self._spans)):
            kind, stop = self._kinds[following], self._spans[following][1]
            if kind not in ("item", "row", "rule", "fence") or stop - start > MAX_QUOTE or kind == level == "item":
                break
            end = stop
        return end

    def _made(self, start: int, own: int, end: int, above: str = "") -> Statement:
        piece = self._text[own:end]
        context = f"{self._heading}. {above}" if self._heading and above else self._heading or above
        return Statement(self._index, start, own, end, plain(piece), context, _ONLY_LINKS.fullmatch(piece) is not None)
