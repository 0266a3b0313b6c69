"""Rich Text Format, by striprtf."""

from __future__ import annotations

import re
from typing import Final

from rag_platform.errors import CorruptDocument
from rag_platform.ingestion.parsers.base import Block, Limits, RawDocument

SUFFIXES: Final = (".rtf",)
VERSION: Final = 1

_TITLE: Final = re.compile(rb"\{\\title ([^{}\\]{1,300})\}")
_CODE_PAGE: Final = re.compile(rb"\\ansicpg(\d{3,5})")


def parse(data: bytes, suffix: str, limits: Limits) -> RawDocument:
    """Read RTF; pictures and objects are left out.

    Raises:
        CorruptDocument: it is no RTF.
    """
    from striprtf.striprtf import rtf_to_text

    if not data.lstrip().startswith(b"{\\rtf"):
        raise CorruptDocument("is no RTF")
    page = _CODE_PAGE.search(data[:4096])
    encoding = f"cp{page[1].decode()}" if page else "cp1252"
    text = rtf_to_text(data.decode("latin-1"), encoding=encoding, errors="replace")  # type: ignore[no-untyped-call]
    title = _TITLE.search(data[:65536])
    blocks: list[Block] = []
    for line in text.split("\n"):
        if "|" in line and line.rstrip().endswith("|"):
            cells = " | ".join(cell.strip() for cell in line.strip().strip("|").split("|"))
            blocks.append(Block("table", cells, tight=bool(blocks) and blocks[-1].kind == "table"))
        elif line.strip():
            blocks.append(Block("text", line.strip()))
    return RawDocument(
        blocks=blocks,
        mime_type="application/rtf",
        title=title[1].decode(encoding, "replace") if title else None,
        parser="rich_text",
    )
