"""WebVTT and SubRip captions: what is said, without timings; a change of speaker starts a paragraph."""

from __future__ import annotations

import re
from typing import Final

from rag_platform.ingestion.parsers.base import Block, Limits, RawDocument
from rag_platform.ingestion.parsers.encoding import decode
from rag_platform.ingestion.parsers.plain_text import paragraphs

LIGHT: Final = True
SUFFIXES: Final = (".vtt", ".srt")
VERSION: Final = 1

_SPEAKER: Final = re.compile(r"<v(?:\.[^ >]{0,80})? ([^>]{1,120})>")
_TAG: Final = re.compile(r"</?[a-zA-Z][^<>]{0,200}>|<\d[\d:.]{0,20}>|\{\\[^{}]{0,40}\}")
_CUES_PER_BLOCK: Final = 12


def parse(data: bytes, suffix: str, limits: Limits) -> RawDocument:
    """Read captions.

    Raises:
        UnsupportedFormat: the bytes are not text.
    """
    text, _ = decode(data)
    blocks: list[Block] = []
    lines: list[str] = []
    speaker: str | None = None
    for cue in paragraphs(text):
        rows = cue.split("\n")
        at = next((i for i, row in enumerate(rows[:3]) if "-->" in row), None)
        if at is None:
            continue  # the WEBVTT header, NOTE, STYLE and REGION blocks
        said = "\n".join(rows[at + 1 :])
        named = _SPEAKER.search(said)
        who = named[1].strip() if named else speaker if said.startswith("-") else None
        said = " ".join(_TAG.sub("", said).split())
        if not said:
            continue
        if who != speaker or len(lines) >= _CUES_PER_BLOCK:
            _flush(blocks, lines)
            if who:
                said = f"{who}: {said}"
        speaker = who
        if not lines or lines[-1] != said:
            lines.append(said)
    _flush(blocks, lines)
    mime = "text/vtt" if suffix == ".vtt" else "application/x-subrip"
    return RawDocument(blocks=blocks, mime_type=mime, parser="captions")


def _flush(blocks: list[Block], lines: list[str]) -> None:
    if lines:
        blocks.append(Block("text", "\n".join(lines)))
        lines.clear()
