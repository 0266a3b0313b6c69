"""How a parser says that it gets on. The worker listens and gives the document more time; elsewhere
nobody does."""

from __future__ import annotations

from collections.abc import Callable

_listener: Callable[[], None] | None = None


def listen(listener: Callable[[], None] | None) -> None:
    """Let ``listener`` be called for each page; ``None`` ends it. One for the process: a worker reads one
    document at a time."""
    global _listener
    _listener = listener


def ocr_page() -> None:
    """Say that one more page is about to be read by OCR."""
    if _listener is not None:
        _listener()
