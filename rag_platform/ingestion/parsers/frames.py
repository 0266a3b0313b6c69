"""What parent and worker say to each other: length-prefixed frames of JSON and bytes. No pickle.

A frame is two big-endian unsigned 64-bit lengths, then a JSON object, then a body. Parsed documents
travel as UTF-8 text in the body with everything else in the JSON.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any, Final

from rag_platform import errors
from rag_platform.errors import CorruptDocument, DocumentError
from rag_platform.records import Element, ParsedDocument

HEADER: Final = struct.Struct(">QQ")
_ERRORS: Final = {
    cls.code: cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, DocumentError)
}


def pack(message: dict[str, Any], body: bytes = b"") -> list[bytes]:
    """Return the pieces of one frame, in order."""
    head = json.dumps(message, separators=(",", ":")).encode()
    return [HEADER.pack(len(head), len(body)), head, body]


def unpack(take: Callable[[int], bytes], max_bytes: int) -> tuple[dict[str, Any], bytes]:
    """Read one frame with ``take(n)``, which returns exactly n bytes or raises.

    Raises:
        ValueError: the frame is larger than ``max_bytes`` or is not one.
    """
    head_size, body_size = HEADER.unpack(take(HEADER.size))
    if head_size + body_size > max_bytes:
        raise ValueError("frame too large")
    message = json.loads(take(head_size))
    if not isinstance(message, dict):
        raise ValueError("not a frame")
    return message, take(body_size)


def document_frame(document: ParsedDocument, **extra: Any) -> list[bytes]:
    """Pack a parsed document; ``extra`` goes along in the JSON."""
    message = {
        "status": "parsed",
        "elements": [[e.kind, e.start, e.end, e.page, e.level] for e in document.elements],
        "mime_type": document.mime_type,
        "title": document.title,
        "language": document.language,
        "page_count": document.page_count,
        "ocr_pages": document.ocr_pages,
        "parser": document.parser,
        "warnings": document.warnings,
    }
    return pack(message | extra, document.text.encode("utf-8"))


def read_document(message: dict[str, Any], body: bytes) -> ParsedDocument:
    """Unpack ``document_frame``, trusting nothing: the sender has read hostile bytes.

    Raises:
        CorruptDocument: the frame breaks the promises of ``ParsedDocument``.
    """
    try:
        text = body.decode("utf-8")
        elements = tuple(Element(k, int(s), int(e), p, int(lv)) for k, s, e, p, lv in message["elements"])
        position = 0
        for element in elements:
            if not position <= element.start <= element.end <= len(text):
                raise ValueError("element spans out of order")
            position = element.end
        return ParsedDocument(
            text=text,
            elements=elements,
            mime_type=str(message["mime_type"]),
            title=message["title"],
            language=message["language"],
            page_count=message["page_count"],
            ocr_pages=tuple(message["ocr_pages"]),
            parser=str(message["parser"]),
            warnings=tuple(message["warnings"]),
        )
    except (KeyError, TypeError, ValueError) as e:
        raise CorruptDocument("its parser process answered with nonsense") from e


def error_frame(error: DocumentError, **extra: Any) -> list[bytes]:
    """Pack a ``DocumentError``: its code, message and cure."""
    message = str(error.args[0]) if error.args else type(error).__name__
    return pack({"status": "failed", "code": error.code, "message": message[:500]} | extra)


def read_error(message: dict[str, Any]) -> DocumentError:
    """Unpack ``error_frame``."""
    cls = _ERRORS.get(str(message.get("code")), DocumentError)
    return cls(str(message.get("message", "cannot be read")))
