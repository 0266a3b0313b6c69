"""Markdown: the text is the source itself, the elements come from a scan line by line.

No Markdown engine: the scan looks at each line a bounded number of times, so hostile nesting costs
nothing. Front matter (Hugo, Jekyll) gives the title and description and is left out; HTML comments are
dropped.
"""

from __future__ import annotations

import re
from typing import Final

from rag_platform.ingestion.parsers.base import Block, Limits, RawDocument
from rag_platform.ingestion.parsers.encoding import decode
from rag_platform.records import ElementKind

LIGHT: Final = True
SUFFIXES: Final = (".md", ".markdown", ".mdown", ".mkd", ".mdx", ".qmd", ".rmd")
VERSION: Final = 1

_FENCE: Final = re.compile(r"[ \t]{0,12}(`{3,}|~{3,})(.*)")
_HEADING: Final = re.compile(r" {0,3}(#{1,6})(?:[ \t]+|$)")
_LIST_ITEM: Final = re.compile(r"[ \t]*(?:[-*+]|\d{1,9}[.)])(?:[ \t]|$)")
_KEY: Final = re.compile(r"(title|description)[ \t]*[:=][ \t]*(.*)", re.IGNORECASE)
_MARKS: Final = frozenset("`~#=-*_+|:")
"""Only a line that begins with one of these, or with a digit, can be more than text or a table's row."""
_MAX_FRONT_MATTER_LINES: Final = 400


def parse(data: bytes, suffix: str, limits: Limits) -> RawDocument:
    """Read Markdown.

    Raises:
        UnsupportedFormat: the bytes are not text.
    """
    text, encoding = decode(data)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    warnings = [] if encoding in ("utf-8", "ascii") else [f"encoding guessed: {encoding}"]
    fields, body = split_front_matter(text)
    blocks = scan(without_comments(body))
    first = next((b for b in blocks if b.kind == "heading" and b.level == 1), None)
    title = fields.get("title") or (heading_text(first.text) if first else None)
    if (own := fields.get("title")) and (first is None or heading_text(first.text).casefold() != own.casefold()):
        # Sites made from front matter show its title as the page's heading: it belongs to what is searched.
        lead = [Block("title", f"# {own}", level=1)]
        if fields.get("description"):
            lead.append(Block("text", fields["description"]))
        blocks = lead + blocks
    return RawDocument(blocks=blocks, mime_type="text/markdown", title=title, parser="markdown_text", warnings=warnings)


def heading_text(source: str) -> str:
    """Return the words of an ATX or setext heading, without marks and ``{#anchor}``."""
    line = source.split("\n", 1)[0].strip()
    if match := _HEADING.match(line):
        line = line[match.end() :].rstrip().rstrip("#").rstrip()
    if line.endswith("}") and (brace := line.rfind("{")) > 0:
        line = line[:brace].rstrip()
    return line.replace("**", "").replace("`", "")


def split_front_matter(text: str) -> tuple[dict[str, str], str]:
    """Return (title and description of the front matter, the rest of the text)."""
    stripped = text.lstrip("\ufeff\n \t")
    fence = stripped[:3]
    if fence not in ("---", "+++") or stripped[3:4] not in ("\n", " ", "\t"):
        return {}, text
    lines = stripped.split("\n", _MAX_FRONT_MATTER_LINES)
    end = next((i for i, line in enumerate(lines[1:_MAX_FRONT_MATTER_LINES], 1) if line.rstrip() == fence), 0)
    if not end or lines[0].strip() != fence or not any(":" in line or "=" in line for line in lines[1:end]):
        return {}, text
    fields: dict[str, str] = {}
    for i, line in enumerate(lines[1:end], 1):
        match = _KEY.match(line)
        if match is None or match[1].lower() in fields:
            continue
        value = match[2].strip()
        if value in (">", "|", ">-", "|-", ""):
            value = _indented(lines[i + 1 : end])
        if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        if value:
            fields[match[1].lower()] = value
    return fields, "\n".join(lines[end + 1 :])


def _indented(lines: list[str]) -> str:
    taken = []
    for line in lines:
        if line.strip() and not line.startswith((" ", "\t")):
            break
        taken.append(line.strip())
    return " ".join(t for t in taken if t)


def without_comments(text: str) -> str:
    """Drop HTML comments that are closed and stand outside fenced and inline code."""
    if "<!--" not in text:
        return text
    kept: list[str] = []
    lines = text.split("\n")
    last_close = max((i for i, line in enumerate(lines) if "-->" in line), default=-1)
    fence: tuple[str, int] | None = None
    inside = False
    for number, line in enumerate(lines):
        if not inside and (fence is not None or (_may_fence(line) and _FENCE.match(line))):
            fence = next_fence(line, fence)
            kept.append(line)
        elif not inside and "<!--" not in line:
            kept.append(line)
        elif inside and "-->" not in line:
            if not line.strip():
                kept.append("")
        else:
            out, inside = _without_comments_in(line, inside, number < last_close)
            if out.strip() or not line.strip():
                kept.append(out)
    return "\n".join(kept)


def _without_comments_in(line: str, inside: bool, closed_later: bool) -> tuple[str, bool]:
    """Return (what is outside comments in one line, whether the line ends inside one). One pass."""
    pieces: list[str] = []
    at, ticks = 0, 0
    last_close = line.rfind("-->")
    while at < len(line):
        if inside:
            close = line.find("-->", at)
            if close < 0:
                return "".join(pieces), True
            at, inside = close + 3, False
            continue
        opened = line.find("<!--", at)
        if opened < 0:
            pieces.append(line[at:])
            break
        before = line[at:opened]
        pieces.append(before)
        ticks += before.count("`")
        at = opened + 4
        inside = not ticks % 2 and (last_close >= at or closed_later)
        if not inside:
            pieces.append("<!--")
    return "".join(pieces), inside


def _may_fence(line: str) -> bool:
    return "```" in line or "~~~" in line


def next_fence(line: str, fence: tuple[str, int] | None) -> tuple[str, int] | None:
    """Return the (character, length) of the code fence that is open after ``line``."""
    match = _FENCE.match(line) if _may_fence(line) else None
    if match is None:
        return fence
    char, length, info = match[1][0], len(match[1]), match[2]
    if fence is None:
        return None if char == "`" and "`" in info else (char, length)
    return None if char == fence[0] and length >= fence[1] and not info.strip() else fence


def scan(text: str) -> list[Block]:
    """Cut Markdown into headings, code, tables, list items and paragraphs; joined again they are the
    source, with runs of blank lines made one."""
    scanner = _Scanner()
    for line in text.split("\n"):
        scanner.feed(line.rstrip())
    scanner.close()
    return scanner.blocks


class _Scanner:
    """The block that is being collected, and the blocks before it."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self._lines: list[str] = []
        self._kind: ElementKind = "text"
        self._level = 0
        self._tight = False
        self._blank = True
        self._fence: tuple[str, int] | None = None
        self._in_list = False

    def feed(self, line: str) -> None:
        if self._fence is not None:
            self._lines.append(line)
            self._fence = next_fence(line, self._fence)
            if self._fence is None:
                self.close()
            return
        if not line:
            self.close()
            self._blank = True
            return
        first = line.lstrip()[0]
        if first not in _MARKS and not first.isdecimal():
            self._plain(line)
            return
        opened = next_fence(line, None)
        if opened is not None:
            self._start("code", line)
            self._fence = opened
        elif heading := _HEADING.match(line):
            self._start("heading", line, len(heading[1]))
            self.close()
            self._in_list = False
        elif self._underlines(line):
            self._lines.append(line)
            self._kind, self._level = "heading", 1 if line.lstrip()[0] == "=" else 2
            self.close()
        elif _is_rule(line):
            self._start("other", line)
            self.close()
        elif self._continues_table(line):
            self._lines.append(line)
        elif self._delimits(line):
            header = self._lines.pop()
            if self._lines:
                self.close()
                self._tight = True
            self._lines += [header, line]
            self._kind = "table"
        elif _LIST_ITEM.match(line):
            self._start("list_item", line)
            self._in_list = True
        else:
            self._plain(line)

    def _plain(self, line: str) -> None:
        if self._continues_table(line) or (self._lines and self._kind in ("text", "list_item", "code")):
            self._lines.append(line)
        else:
            indented = line.startswith(("    ", "\t"))
            self._start("code" if indented and not self._in_list else "text", line)
            self._in_list = self._in_list and indented

    def close(self) -> None:
        if self._lines:
            self.blocks.append(Block(self._kind, "\n".join(self._lines), level=self._level, tight=self._tight))
            self._lines = []
        self._blank = False
        self._level = 0

    def _start(self, kind: ElementKind, line: str, level: int = 0) -> None:
        self._tight_next()
        self._lines = [line]
        self._kind, self._level = kind, level

    def _tight_next(self) -> None:
        if self._lines:
            self.close()
        self._tight = not self._blank
        self._blank = False

    def _continues_table(self, line: str) -> bool:
        return self._kind == "table" and bool(self._lines) and "|" in line

    def _underlines(self, line: str) -> bool:
        """A setext underline below a one-line paragraph."""
        marks = line.strip()
        return self._kind == "text" and len(self._lines) == 1 and (set(marks) == {"="} or set(marks) == {"-"})

    def _delimits(self, line: str) -> bool:
        """The ``|---|---|`` row below a table's header."""
        if not self._lines or self._kind not in ("text", "list_item") or "|" not in self._lines[-1]:
            return False
        return "-" in line and "|" in line and not line.strip("|:- \t")


def _is_rule(line: str) -> bool:
    marks = line.replace(" ", "").replace("\t", "")
    return len(marks) >= 3 and marks[0] in "-*_" and marks.count(marks[0]) == len(marks)
