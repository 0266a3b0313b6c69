"""Web pages: HTML, XHTML and MHTML archives."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage
from typing import Final

from rag_platform.errors import CorruptDocument
from rag_platform.ingestion.parsers.base import Limits, RawDocument
from rag_platform.ingestion.parsers.markup import decode_html, read_html

SUFFIXES: Final = (".html", ".htm", ".xhtml", ".xht", ".shtml", ".mhtml", ".mht")
VERSION: Final = 1


def parse(data: bytes, suffix: str, limits: Limits) -> RawDocument:
    """Read a web page; nothing that it refers to is fetched.

    Raises:
        CorruptDocument: an MHTML archive without a page.
        UnsupportedFormat: the bytes are not text.
    """
    declared = None
    if suffix in (".mhtml", ".mht"):
        data, declared = _main_part(data)
    text, encoding = decode_html(data, declared)
    markup = read_html(text)
    warnings = [] if encoding in ("utf-8", "ascii") else [f"encoding: {encoding}"]
    return RawDocument(
        blocks=markup.blocks,
        mime_type="multipart/related" if suffix in (".mhtml", ".mht") else "text/html",
        title=markup.title,
        language=markup.language,
        warnings=warnings,
        parser="web",
    )


def _main_part(data: bytes) -> tuple[bytes, str | None]:
    message = email.message_from_bytes(data, policy=email.policy.default)
    for part in message.walk():
        if part.get_content_type() in ("text/html", "application/xhtml+xml") and isinstance(part, EmailMessage):
            payload = part.get_payload(decode=True)
            if isinstance(payload, bytes):
                return payload, part.get_content_charset()
    raise CorruptDocument("this MHTML archive holds no page")
