"""E-mail: headers, body, and the text of attachments that some parser reads. A bad attachment is a
warning, never the failure of its mail."""

from __future__ import annotations

import codecs
import dataclasses
import email
import email.errors
import email.header
import email.policy
import functools
import io
import re
from collections.abc import Iterable
from email.message import Message
from typing import Any, Final

from rag_platform.errors import CorruptDocument, DocumentError
from rag_platform.ingestion.parsers.assemble import clean_title
from rag_platform.ingestion.parsers.base import Block, Limits, RawDocument
from rag_platform.ingestion.parsers.dispatch import read_nested
from rag_platform.ingestion.parsers.encoding import decode
from rag_platform.ingestion.parsers.markup import decode_html, read_html
from rag_platform.ingestion.parsers.plain_text import paragraphs

SUFFIXES: Final = (".eml", ".msg")
VERSION: Final = 1

_HEADERS: Final = ("Subject", "From", "To", "Cc", "Date")
_MAX_ATTACHMENTS: Final = 200
_CODE_PAGE: Final = re.compile(r"windows[-_](\d{3,5})")
_NEW_WORDS_SHARE: Final = 0.2


def parse(data: bytes, suffix: str, limits: Limits) -> RawDocument:
    """Read a mail.

    Raises:
        CorruptDocument: it cannot be opened.
    """
    return _outlook(data, limits) if suffix == ".msg" else _internet(data, limits)


# ── RFC 5322 ──


def _internet(data: bytes, limits: Limits) -> RawDocument:
    message = email.message_from_bytes(data, policy=email.policy.compat32)
    raw = RawDocument(mime_type="message/rfc822", parser="mail")
    headers = {name: _header(message, name) for name in _HEADERS}
    body: list[Block] = []
    attachments: list[tuple[str, bytes]] = []
    _collect(message, body, attachments, raw)
    _compose(raw, headers, body, attachments, limits)
    return raw


def _collect(message: Message, body: list[Block], attachments: list[tuple[str, bytes]], raw: RawDocument) -> None:
    """Walk the parts: of alternatives the plain text if it says anything, else the HTML."""
    stack: list[Message] = [message]
    while stack:
        part = stack.pop()
        kind = part.get_content_type()
        children = part.get_payload() if part.is_multipart() else None
        if kind == "message/rfc822" and isinstance(children, list) and part is not message:
            attachments.append(("attached.eml", b"".join(c.as_bytes() for c in children[:1] if isinstance(c, Message))))
        elif isinstance(children, list):
            messages = [c for c in children if isinstance(c, Message)]
            if kind == "multipart/alternative":
                messages = _best_alternative(messages)
            stack += reversed(messages)
        else:
            payload = part.get_payload(decode=True)
            content = payload if isinstance(payload, bytes) else b""
            name = _file_name(part)
            if name or part.get_content_disposition() == "attachment" or not kind.startswith("text/"):
                attachments.append((name or _named_by(kind), content))
            else:
                body += _body_blocks(content, kind, part.get_content_charset())


def _best_alternative(parts: list[Message]) -> list[Message]:
    """The plain text if it says anything, and the richest part too when that says something else."""
    for part in parts:
        if part.get_content_type() == "text/plain" and (said := _vocabulary(part)):
            last = parts[-1]
            if last is part:
                return [part]
            new = _vocabulary(last) - said
            return [part, last] if len(new) > _NEW_WORDS_SHARE * len(said) or last.is_multipart() else [part]
    return parts[-1:]


def _vocabulary(part: Message) -> set[str]:
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes) or not part.get_content_type().startswith("text/"):
        return set()
    blocks = _body_blocks(payload, part.get_content_type(), part.get_content_charset())
    return {word for block in blocks for word in block.text.casefold().split()}


def _body_blocks(content: bytes, kind: str, charset: str | None) -> list[Block]:
    if kind == "text/html":
        return read_html(decode_html(content, charset)[0]).blocks
    return [Block("text", p) for p in paragraphs(decode(content, declared=charset)[0])]


def _header(message: Message, name: str) -> str:
    value = message.get(name)
    if value is None:
        return ""
    pieces = []
    try:
        for piece, charset in email.header.decode_header(value):
            if isinstance(piece, bytes):
                piece = decode(piece, declared=None if charset in (None, "unknown-8bit") else charset)[0]
            pieces.append(piece)
    except (email.errors.HeaderParseError, DocumentError, ValueError):
        pieces = [str(value)]
    return " ".join("".join(pieces).split())


def _file_name(part: Message) -> str:
    """The name that an attachment claims; used only for its suffix and to show, never as a path."""
    try:
        name = part.get_filename() or ""
    except (ValueError, TypeError, LookupError):
        return ""
    return clean_title(str(name).replace("\\", "/").rsplit("/", 1)[-1]) or ""


def _named_by(kind: str) -> str:
    return {"text/html": "part.html", "text/calendar": "part.txt"}.get(
        kind, "part.txt" if kind.startswith("text/") else ""
    )


# ── Outlook ──


def _outlook(data: bytes, limits: Limits) -> RawDocument:
    import oxmsg

    _name_code_pages()
    raw = RawDocument(mime_type="application/vnd.ms-outlook", parser="mail")
    try:
        message = oxmsg.Message.load(io.BytesIO(data))
        headers = {
            "Subject": _recoded(message.subject or "", message.properties.body_encoding),
            "From": message.sender or "",
            "To": ", ".join(filter(None, (_recipient(r) for r in message.recipients))),
            "Date": message.sent_date.isoformat(" ") if message.sent_date else "",
        }
        body = _outlook_body(message)
        attachments = []
        for attachment in message.attachments:
            name = (attachment.file_name or "").replace("\\", "/").rsplit("/", 1)[-1]
            attachments.append((clean_title(name) or "", attachment.file_bytes or b""))
    except Exception as e:  # its reader raises whatever the damage leads to
        raise CorruptDocument(f"this Outlook message is damaged ({type(e).__name__})") from e
    _compose(raw, headers, body, attachments, limits)
    return raw


def _recipient(recipient: Any) -> str:
    name, address = recipient.name or "", recipient.email_address or ""
    return f"{name} <{address}>" if name and address and name != address else name or address


@functools.cache
def _name_code_pages() -> None:
    """Teach Python the names ``windows-950`` and the like, which Outlook uses for what Python calls cp950."""

    def find(name: str) -> codecs.CodecInfo | None:
        match = _CODE_PAGE.fullmatch(name)
        try:
            return codecs.lookup(f"cp{match[1]}") if match else None
        except LookupError:
            return None

    codecs.register(find)


def _recoded(text: str, encoding: str) -> str:
    """Undo the decoding of 8-bit headers as Windows-1252 where the body has another code page."""
    if text.isascii():
        return text
    try:
        return text.encode("cp1252").decode(encoding)
    except (UnicodeError, LookupError):
        return text


def _outlook_body(message: Any) -> list[Block]:
    text = message.body or ""
    if text.strip():
        return [Block("text", p) for p in paragraphs(text)]
    html = message.html_body or ""
    return read_html(html).blocks if html.strip() else []


# ── both ──


def _compose(
    raw: RawDocument,
    headers: dict[str, str],
    body: list[Block],
    attachments: Iterable[tuple[str, bytes]],
    limits: Limits,
) -> None:
    shown = "\n".join(f"{name}: {value}" for name, value in headers.items() if value)
    extra: list[Block] = []
    for number, (name, content) in enumerate(attachments):
        if number >= _MAX_ATTACHMENTS:
            raw.warnings.append(f"only the first {_MAX_ATTACHMENTS} attachments were read")
            break
        extra += _attachment(raw, name, content, limits)
    raw.title = headers.get("Subject") or None
    if body or extra or headers.get("Subject"):
        raw.blocks = [Block("other", shown), *body, *extra] if shown else [*body, *extra]


def _attachment(raw: RawDocument, name: str, content: bytes, limits: Limits) -> list[Block]:
    label = name or "attachment"
    deeper = dataclasses.replace(limits, max_attachment_depth=limits.max_attachment_depth - 1)
    try:
        inside = read_nested(content, name, deeper)
    except DocumentError as e:
        raw.warnings.append(f"attachment {label}: {e.code}")
        return []
    raw.warnings += [f"attachment {label}: {warning}" for warning in inside.warnings]
    blocks = [dataclasses.replace(block, page=None) for block in inside.blocks]
    return [Block("heading", f"Attachment: {label}", level=2), *blocks] if blocks else []
