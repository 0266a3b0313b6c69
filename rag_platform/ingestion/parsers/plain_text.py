"""Plain text: paragraphs are what blank lines separate. Source code, logs and YAML are read as they
stand (never loaded or run)."""

from __future__ import annotations

from typing import Final

from rag_platform.ingestion.parsers.base import Block, Limits, RawDocument
from rag_platform.ingestion.parsers.encoding import decode
from rag_platform.records import ElementKind

LIGHT: Final = True
VERSION: Final = 1

SUFFIXES: Final = (
    ".txt", ".text", ".log", ".rst", ".adoc", ".asciidoc", ".org", ".textile", ".wiki",
    ".py", ".js", ".ts", ".tsx", ".jsx", ".java", ".c", ".h", ".cc", ".cpp", ".hpp", ".cs", ".go", ".rs", ".rb",
    ".php", ".swift", ".kt", ".scala", ".r", ".jl", ".lua", ".pl", ".sh", ".bash", ".zsh", ".ps1", ".bat", ".sql",
    ".css", ".scss", ".less", ".vue", ".tf", ".proto", ".graphql", ".gradle", ".cmake", ".dockerfile", ".mk",
    ".yaml", ".yml", ".toml", ".ini", ".cfg", ".conf", ".properties", ".env", ".diff", ".patch", ".tex", ".bib",
)  # fmt: skip
_PROSE: Final = frozenset((".txt", ".text", ".log", ".rst", ".adoc", ".asciidoc", ".org", ".textile", ".wiki"))


def parse(data: bytes, suffix: str, limits: Limits) -> RawDocument:
    """Read text of any encoding.

    Raises:
        UnsupportedFormat: the bytes are not text.
    """
    text, encoding = decode(data)
    kind: ElementKind = "code" if suffix in SUFFIXES and suffix not in _PROSE else "text"
    blocks = [Block(kind, paragraph) for paragraph in paragraphs(text)]
    warnings = [] if encoding in ("utf-8", "ascii") else [f"encoding guessed: {encoding}"]
    return RawDocument(blocks=blocks, mime_type="text/plain", parser="plain_text", warnings=warnings)


def paragraphs(text: str) -> list[str]:
    """Split at blank lines; a line is blank when it holds only white space."""
    found: list[str] = []
    lines: list[str] = []
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if line.strip("\x00 \t\f\v"):
            lines.append(line.rstrip())
        elif lines:
            found.append("\n".join(lines))
            lines = []
    if lines:
        found.append("\n".join(lines))
    return found
