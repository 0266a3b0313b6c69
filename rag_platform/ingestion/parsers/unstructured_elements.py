"""The one place where ``unstructured`` is prepared, and its elements become blocks.

unstructured labels text with the spaCy model ``en_core_web_sm``, which it downloads at first use; without
network Word and PowerPoint files would all fail. A blank English pipeline with a sentence splitter gives
the same elements (only the Text / NarrativeText label differs, which no stage uses), needs no download and
is six times as fast. The guesses behind those labels, a third of the time that a Word file takes, are
switched off as well: headings come from styles and placeholders, not from how short a line is. Its
telemetry is switched off by the worker's environment, before any import.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, Final

from rag_platform.ingestion.parsers.base import Block
from rag_platform.ingestion.parsers.markup import read_html
from rag_platform.records import ElementKind

VERSION: Final = 1

_KINDS: Final[dict[str, ElementKind]] = {
    "Title": "heading",
    "ListItem": "list_item",
    "Table": "table",
    "CodeSnippet": "code",
    "Header": "other",
    "Footer": "other",
    "PageNumber": "other",
}


@functools.cache
def prepare() -> None:
    """Give unstructured its sentence splitter. Idempotent; costs the import of spaCy once a process."""
    import spacy
    import unstructured.nlp.tokenize as tokenize

    pipeline = spacy.blank("en")
    pipeline.add_pipe("sentencizer")
    pipeline.max_length = 1 << 31
    tokenize._get_nlp = lambda: pipeline  # type: ignore[assignment]

    from unstructured.partition import docx, pptx

    for module in (docx, pptx):
        for guess in ("is_possible_narrative_text", "is_possible_title", "is_us_city_state_zip"):
            if hasattr(module, guess):
                setattr(module, guess, _never)


def _never(*_: Any, **__: Any) -> bool:
    return False


def to_blocks(elements: Iterable[Any], *, max_heading_depth: int = 9) -> list[Block]:
    """Convert elements of unstructured.

    Args:
        max_heading_depth: titles deeper than this are guesses of its text classifier, and become text.
    """
    blocks: list[Block] = []
    for element in elements:
        text = element.text or ""
        kind = _KINDS.get(element.category, "text")
        if element.category == "PageBreak" or not text.strip():
            continue
        level = 0
        if kind == "heading":
            level = (element.metadata.category_depth or 0) + 1
            if level > max_heading_depth:
                kind, level = "text", 0
        elif kind == "table":
            text = _table(element.metadata.text_as_html) or text
        elif kind == "list_item":
            text = f"- {text.strip()}"
        tight = kind == "list_item" and bool(blocks) and blocks[-1].kind == "list_item"
        blocks.append(Block(kind, text.strip(), page=element.metadata.page_number, level=level, tight=tight))
    return blocks


def _table(html: str | None) -> str:
    return "\n".join(block.text for block in read_html(html).blocks) if html else ""
