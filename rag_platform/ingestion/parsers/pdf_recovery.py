"""Second chances for a PDF that pdfium refuses or reads as empty.

First its cross-reference table is built anew from the objects found in the bytes (a cut-off or damaged
tail is the most common damage), then pypdf is asked. Each finds text in files that the other does not.
"""

from __future__ import annotations

import re
import time
from typing import Final

from rag_platform.errors import EncryptedDocument, LimitExceeded
from rag_platform.ingestion.parsers.base import Limits

_OBJECT: Final = re.compile(rb"(?<!\d)(\d{1,7})[ \t\r\n]{1,4}(\d{1,5})[ \t\r\n]{1,4}obj\b")
_CATALOG: Final = re.compile(rb"/Type\s{0,8}/Catalog\b")
_HEADER: Final = re.compile(rb"%PDF-\d")
_DICTIONARY_BYTES: Final = 2000
_PYPDF_MAX_BYTES: Final = 50_000_000
_PYPDF_CPU_SHARE: Final = 0.4


def rebuild(data: bytes) -> bytes | None:
    """Return the bytes with a fresh cross-reference table and trailer, or None when they hold no
    readable catalogue object."""
    header = _HEADER.search(data)
    body = data[header.start() :] if header else data
    offsets: dict[int, tuple[int, int]] = {}
    root: tuple[int, int] | None = None
    for match in _OBJECT.finditer(body):
        number, generation = int(match[1]), int(match[2])
        offsets[number] = (match.start(), generation)  # the last one wins, as in an updated file
        dictionary = body[match.end() : match.end() + _DICTIONARY_BYTES].split(b"endobj", 1)[0].split(b"stream", 1)[0]
        if _CATALOG.search(dictionary):
            root = (number, generation)
    if root is None:
        return None
    table = bytearray(b"\nxref\n0 1\n0000000000 65535 f \n")
    for number, (offset, generation) in sorted(offsets.items()):
        table += b"%d 1\n%010d %05d n \n" % (number, offset, generation)
    table += b"trailer\n<</Root %d %d R /Size %d>>\n" % (*root, max(offsets) + 1)
    return body + bytes(table) + b"startxref\n%d\n%%%%EOF\n" % (len(body) + 1)


def read_with_pypdf(data: bytes, limits: Limits) -> list[str] | None:
    """Return the text of each page as pypdf reads it, or None when it cannot, or has found no text in two
    fifths of the CPU time that the document may use.

    Raises:
        EncryptedDocument: it needs a password.
        LimitExceeded: too many pages, or that time did not suffice for all of them.
    """
    if len(data) > _PYPDF_MAX_BYTES:
        return None
    import io
    import logging

    import pypdf

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    until = time.process_time() + _PYPDF_CPU_SHARE * limits.cpu_s
    texts: list[str] = []
    try:
        reader = pypdf.PdfReader(io.BytesIO(data), strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            raise EncryptedDocument("the PDF needs a password")
        count = len(reader.pages)
        if count > limits.max_pages:
            raise LimitExceeded(f"has {count} pages; the limit is {limits.max_pages}")
        for page in reader.pages:
            if time.process_time() > until:
                if any(t.strip() for t in texts):  # part of a document is not the document
                    raise LimitExceeded("is damaged and too long to be recovered", cure="raise RAG_PARSE_CPU_S")
                return None
            texts.append(_page_text(page))
    except (EncryptedDocument, LimitExceeded, MemoryError):
        raise
    except Exception:  # damaged files make pypdf raise anything; the caller has its own verdict
        return texts if any(t.strip() for t in texts) else None
    return texts


def _page_text(page: object) -> str:
    try:
        return str(page.extract_text())  # type: ignore[attr-defined]
    except MemoryError:
        raise
    except Exception:  # one bad page among good ones
        return ""
