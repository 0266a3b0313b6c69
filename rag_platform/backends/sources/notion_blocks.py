"""Notion's blocks as Markdown.

Files that Notion hosts are named, not linked: their addresses are signed anew with every request, and
would change the document's bytes each time. A block of an unknown type gives what text it has; one that
tells nothing leaves a comment, so that the stored bytes show where something is missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rag_platform.backends.sources.notion_text import link, markdown, page_address, plain
from rag_platform.errors import LimitExceeded

MAX_BLOCKS = 50_000
MAX_DEPTH = 60
Block = dict[str, Any]

_SEPARATE = ("child_page", "child_database")
"""Blocks that are documents of their own."""
_ITEMS = ("bulleted_list_item", "numbered_list_item", "to_do", "toggle")
_CONTAINERS = ("synced_block", "column_list", "column", "tab", "tabs")
_NOTHING = ("table_of_contents", "breadcrumb", "button")
_FILES = {"image": "Image", "video": "Video", "audio": "Audio", "file": "File", "pdf": "PDF"}
_LINKS = ("bookmark", "embed", "link_preview")
_HEADING = re.compile(r"heading_([1-6])")
_TICKS = re.compile("`+")


def load_tree(children: Callable[[str], list[Block] | None], page_id: str) -> list[Block] | None:
    """Return the blocks of a page, each with its own under ``children``; None when the page is gone.

    Args:
        children: gives the direct blocks of a page or block, complete.
        page_id: the page.

    Raises:
        LimitExceeded: there are too many, or they are nested too deeply.
    """
    top = children(page_id)
    if top is None:
        return None
    count = 0
    waiting = [(block, 1) for block in reversed(top)]
    while waiting:
        block, depth = waiting.pop()
        count += 1
        if count > MAX_BLOCKS or depth > MAX_DEPTH:
            raise LimitExceeded(f"it has more than {MAX_BLOCKS} blocks, or more than {MAX_DEPTH} levels of them")
        if block.get("has_children") and block["type"] not in _SEPARATE:
            inner = children(block["id"])
            if inner is None and not (block["type"] == "synced_block" and block["synced_block"].get("synced_from")):
                return None  # edited while it was read
            # A copy of a synced block whose original is not shared has children that nobody may see.
            block["children"] = inner or []
            waiting += [(child, depth + 1) for child in reversed(block["children"])]
    return top


def separate_documents(blocks: Sequence[Block]) -> Iterator[tuple[str, str]]:
    """Yield (type, id) of the pages and databases that lie inside these blocks, at any depth."""
    for block in blocks:
        if block["type"] in _SEPARATE:
            yield block["type"], block["id"]
        yield from separate_documents(block.get("children", ()))


def render(blocks: Sequence[Block]) -> str:
    """Return Markdown."""
    pieces: list[str] = []
    previous, number = "", 0
    for block in blocks:
        kind = block["type"]
        number = number + 1 if kind == "numbered_list_item" else 0
        text = _block(block, kind, number)
        if not text:
            continue
        if pieces:
            pieces.append("\n" if kind in _ITEMS and previous in _ITEMS else "\n\n")
        pieces.append(text)
        previous = kind
    return "".join(pieces)


def _block(block: Block, kind: str, number: int) -> str:
    data: dict[str, Any] = block.get(kind) or {}
    inner = render(block.get("children", ())) if kind != "table" else ""
    text, caption = markdown(data.get("rich_text")), markdown(data.get("caption"))
    if heading := _HEADING.fullmatch(kind):
        title = " ".join(text.split())
        marks = "#" * min(int(heading[1]) + 1, 6)  # the page's title is the only one of the first level
        return _joined(f"{marks} {title}" if title else "", inner)
    if kind in _ITEMS:
        mark = f"{number}." if number else "-"
        if kind == "to_do":
            mark = "- [x]" if data.get("checked") else "- [ ]"
        return f"{mark} {_indented(text)}".rstrip() + (f"\n    {_indented(inner)}" if inner else "")
    if kind in ("quote", "callout"):
        icon = (data.get("icon") or {}).get("emoji") or ""
        quoted = _joined(f"{icon} {text}".strip(), inner)
        return "\n".join(f"> {line}".rstrip() for line in quoted.split("\n")) if quoted else ""
    if kind == "code":
        return _joined(_fenced(plain(data.get("rich_text")), str(data.get("language") or "")), caption)
    if kind == "equation":
        return f"$$\n{data.get('expression') or ''}\n$$"
    if kind == "divider":
        return "---"
    if kind == "table":
        return _table(block.get("children", ()))
    if kind in _LINKS:
        url = str(data.get("url") or "")
        return link(plain(data.get("caption")) or url, url)
    if kind in _FILES:
        return _file(_FILES[kind], data)
    if kind in _SEPARATE:
        return link(str(data.get("title") or "Untitled"), page_address(block["id"]))
    if kind == "link_to_page":
        target = next((str(data[k]) for k in ("page_id", "database_id", "comment_id") if data.get(k)), "")
        return link("Linked page", page_address(target)) if target else ""
    if kind in _CONTAINERS or kind in _NOTHING:
        return inner
    return _unknown(kind, data, _joined(text, inner))


def _unknown(kind: str, data: dict[str, Any], text: str) -> str:
    """Paragraphs and whatever holds its text as they do."""
    if text or kind == "paragraph":
        return text
    given = data.get("title") or data.get("caption") or data.get("name")
    found = given if isinstance(given, str) else plain(given)
    return found or f"<!-- a Notion block of type {re.sub(r'[^a-z0-9_]', '', kind)} without text -->"


def _file(what: str, data: dict[str, Any]) -> str:
    external = str((data.get("external") or {}).get("url") or "")
    name = plain(data.get("caption")) or str(data.get("name") or "") or external.rsplit("/", 1)[-1]
    shown = f"{what}: {name}" if name else what
    return link(shown, external) if external else f"[{shown}]"


def _table(rows: Sequence[Block]) -> str:
    cells = [
        [" ".join(markdown(cell).split()).replace("|", r"\|") for cell in row["table_row"]["cells"]]
        for row in rows
        if row["type"] == "table_row"
    ]
    if not cells:
        return ""
    lines = [f"| {' | '.join(row)} |" for row in cells]
    lines.insert(1, f"|{'---|' * len(cells[0])}")
    return "\n".join(lines)


def _fenced(code: str, language: str) -> str:
    longest = max((len(run) for run in _TICKS.findall(code)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{'' if language == 'plain text' else language}\n{code}\n{fence}"


def _indented(text: str) -> str:
    """Indent all lines but the first."""
    return text.replace("\n", "\n    ").replace("\n    \n", "\n\n")


def _joined(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)
