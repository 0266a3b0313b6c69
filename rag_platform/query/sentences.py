"""Where sentences begin and end, in prose and in what documents hold besides: headings, lists, table
rows, code.

Lines are read first (a heading, a list item or a table row is a sentence whatever its punctuation), then
what remains is cut at punctuation. Rules as in Kiss and Strunk, "Unsupervised multilingual sentence
boundary detection", 2006, with fixed word lists instead of learned ones: a question's passages are too
little text to learn from. Every pattern looks at a bounded number of characters per position, so the time
is linear whatever the text.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Literal

Span = tuple[int, int]
LineKind = Literal["blank", "fence", "heading", "rule", "row", "item", "text"]

MAX_WEIGHT = 500
"""A longer stretch is cut: an ASCII character weighs 1, a CJK character, which is a token by itself, 2."""

_FENCE = re.compile(r"[ \t]{0,8}(?:```|~~~)")
_HEADING = re.compile(r"[ \t]{0,3}#{1,6}[ \t]+\S")
_RULE = re.compile(r"[=\-*_~+|: \t]{3,}$")
_ROW = re.compile(r"[ \t]*\|.*\||[^|\n]*\S[ \t]+\|[ \t]+\S|[^\t\n]*\S\t+[^\t\n]*\S\t+\S")
_ITEM = re.compile(
    r"[ \t]*(?:[-*+•‣◦▪●○–—·]|\[[ xX]\]|\(?\d{1,3}(?:\.\d{1,3}){0,3}[.)]|\(?[a-z][.)]|\(?[A-Z]\)|\(?[ivx]{2,5}[.)])[ \t]+(?=\S)"
)

_CLOSING = "\"'”’»)\\]）】」』》*_`"
_END = re.compile(
    rf"(?<![.!?…؟۔।॥])[.!?…؟۔।॥]++[{_CLOSING}]{{0,4}}(?:\[\d{{1,3}}\]){{0,4}}(?=\s)"  # ends where white space follows
    rf"|[。！？｡]+[{_CLOSING}]{{0,4}}"  # CJK: no space needed
)
_CLAUSE = re.compile(r"[;:,—–](?=\s)|[，、；：]|\.(?=\s)")
_NEXT_WORD = re.compile(r"[\s\"'“‘«(\[*_`¿¡]{0,8}(\w{0,12})")
_LAST_WORD = re.compile(r"(?:^|(?<![\w.]))((?:\w{1,12}\.){0,4}\w{0,12})$")

_WITH_NAME = re.compile(
    "mrs?|ms|dr|prof|st|gen|sen|rep|lt|col|capt|cmdr|sgt|maj|rev|hon|mt|ft|pres|gov|sir|messrs|mme|mlle|fr|hr|dipl|ing"
)
"""Stand before a name: never the end."""
_INSIDE = re.compile(r"e\.?g|i\.?e|cf|viz|vs|resp|incl|approx|ca|bzw|z\.b|d\.h|u\.a|vgl")
_WITH_NUMBER = re.compile(
    "no|nr|figs?|eqs?|sec|ch|vol|art|pp?|para?|tab|ver|v|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec"
)
"""Stand before a number: the end unless one follows."""
_EITHER = re.compile(r"inc|ltd|co|corp|llc|jr|sr|etc|al|[ap]\.m|ph\.d|dept|est|(?:[a-z]\.){1,4}[a-z]|[a-z]")
_STARTER = re.compile(
    "an?|after|all|also|although|and|as|at|because|before|both|but|by|despite|during|each|for|from|he|her|here|his|how"
    "|however|i[fnt]?|its|many|most|no|on|one|our|she|since|some|such|that|the|their|then|there|these|they|this|those"
    "|to|under|until|we|what|when|where|which|while|who|with|your?"
)
"""Behind an abbreviation or an initial only these, capitalised, begin a new sentence."""


def split(text: str) -> list[Span]:
    """Return the spans of the sentences of ``text``: in order, disjoint, trimmed, never empty, with nothing
    but white space outside them. A heading, a list item, a table row and a code block begin and end one."""
    spans: list[Span] = []
    for start, end, prose in _blocks(text):
        for piece in _sentences(text, start, end) if prose else [(start, end)]:
            spans.extend(_cut(text, *piece))
    return spans


def line_kind(line: str) -> LineKind:
    """Tell what a line is by its marks alone; ``rule`` is a line of dashes and the like."""
    if not line.strip():
        return "blank"
    if _FENCE.match(line):
        return "fence"
    if _HEADING.match(line):
        return "heading"
    if _RULE.match(line):
        return "rule"
    if _ITEM.match(line):
        return "item"
    return "row" if _ROW.match(line) else "text"


def item_marker(line: str) -> int:
    """Return the length of the list marker that ``line`` begins with, white space included; 0 without one."""
    match = _ITEM.match(line)
    return match.end() if match else 0


def _blocks(text: str) -> Iterator[tuple[int, int, bool]]:
    """Yield (start, end, whether it is prose): runs of lines that may share a sentence."""
    lines = _lines(text)
    kinds = [line_kind(text[a:b]) for a, b in lines]
    open_at: int | None = None
    i = 0
    while i < len(lines):
        start, end = lines[i]
        kind = kinds[i]
        if open_at is not None and kind != "text":
            yield from _paragraph(text, lines[open_at:i])
            open_at = None
        if kind == "fence" and (closing := _closing_fence(text, lines, kinds, i)):
            yield start, lines[closing][1], False
            i = closing
        elif kind in ("text", "item"):
            open_at = i if open_at is None else open_at
        elif kind != "blank":
            yield start, end, False
        i += 1
    if open_at is not None:
        yield from _paragraph(text, lines[open_at:])


def _lines(text: str) -> list[Span]:
    lines: list[Span] = []
    start = 0
    while start <= len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        lines.append((start, end))
        start = end + 1
    return lines


def _closing_fence(text: str, lines: list[Span], kinds: list[LineKind], opening: int) -> int | None:
    """Return the line that closes the fence. A chunk may begin inside a code block, so that its first
    fence closes: a fence without a partner is a line by itself."""
    mark = text[slice(*lines[opening])].strip()[:3]
    for i in range(opening + 1, len(lines)):
        if kinds[i] == "fence" and (line := text[slice(*lines[i])].strip()).startswith(mark):
            return i if not line.strip("`~") else None
    return None


def _paragraph(text: str, lines: list[Span]) -> Iterator[tuple[int, int, bool]]:
    """Cut at line ends that are no mere wrapping: behind a line that had room for the next word."""
    width = max(end - start for start, end in lines)
    first = lines[0][0]
    for (start, end), (following, after) in itertools.pairwise(lines):
        head = text[following:after].lstrip()
        room = end - start < 0.6 * width or width < 45
        if room and not head[:1].islower():
            yield first, end, True
            first = following
    yield first, lines[-1][1], True


def _sentences(text: str, start: int, end: int) -> Iterator[Span]:
    marker = item_marker(text[start : min(end, start + 40)])
    first = start
    for match in _END.finditer(text, start + marker, end):
        if match.end() < end and _ends(text, first + (marker if first == start else 0), match, end):
            yield first, match.end()
            first = match.end()
    yield first, end


def _ends(text: str, start: int, match: re.Match[str], end: int) -> bool:
    """Tell whether the mark that ``match`` found ends the sentence that began at ``start``."""
    mark = match.group()
    if mark[0] in "。！？｡":
        return True
    following = _NEXT_WORD.match(text, match.end(), end)
    word = following.group(1) if following else ""
    # Code keeps its case, at the beginning of a sentence too.
    if word[:1].islower() and "`" not in text[match.end() : following.start(1) if following else None]:
        return False
    if mark[0] != "." or mark.startswith(".."):
        return True
    previous = _LAST_WORD.search(text, max(start, match.start() - 30), match.start())
    last = previous.group(1) if previous else ""
    lower = last.lower()
    if _WITH_NAME.fullmatch(lower) or _INSIDE.fullmatch(lower):
        return False
    if _WITH_NUMBER.fullmatch(lower):
        return not word[:1].isdigit()
    # A lower-case letter by itself is a variable, not an initial.
    if _EITHER.fullmatch(lower) and not (len(last) == 1 and last.islower()):
        return bool(_STARTER.fullmatch(word.lower()))
    return True


def _cut(text: str, start: int, end: int) -> Iterator[Span]:
    """Trim, and cut what is too long: at a line end or clause, else at white space, else anywhere."""
    while True:
        piece = text[start:end]
        start, end = end - len(piece.lstrip()), start + len(piece.rstrip())
        if start >= end:
            return
        limit = _reach(text, start, end)
        if limit == end:
            yield start, end
            return
        low = start + (limit - start) // 3
        at = text.rfind("\n", low, limit)
        if at < 0:
            at = max((m.end() for m in _CLAUSE.finditer(text, low, limit)), default=-1)
        if at < 0:
            at = max((m.start() for m in re.finditer(r"\s", text[low:limit])), default=-1)
            at = at + low if at >= 0 else limit
        yield start, start + len(text[start:at].rstrip())
        start = at


def _reach(text: str, start: int, end: int) -> int:
    """Return how far from ``start`` the weight allows, at most ``end``."""
    if end - start <= MAX_WEIGHT // 2 or (end - start <= MAX_WEIGHT and text[start:end].isascii()):
        return end
    weight = 0
    for at in range(start, min(end, start + MAX_WEIGHT + 1)):
        weight += 2 if text[at] >= "\u2e80" else 1
        if weight > MAX_WEIGHT:
            return at
    return end
