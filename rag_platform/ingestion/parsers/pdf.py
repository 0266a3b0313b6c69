"""PDF, page by page: the text layer by pdfium, OCR for pages that have none (or a worthless one), a
rebuilt cross-reference table and pypdf for files that pdfium cannot read."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c

from rag_platform.errors import ConfigurationError, CorruptDocument, EncryptedDocument, LimitExceeded, UnsupportedFormat
from rag_platform.ingestion.parsers import ocr, page_layout, pdf_recovery, pdf_text, text_quality
from rag_platform.ingestion.parsers.base import Block, Limits, RawDocument
from rag_platform.ingestion.parsers.page_layout import Line
from rag_platform.ingestion.parsers.plain_text import paragraphs

SUFFIXES: Final = (".pdf",)
VERSION: Final = 2

_MIME: Final = "application/pdf"
_FEW_LETTERS: Final = 50
_SCAN_SHARE: Final = 0.4
_FULL_PAGE_SHARE: Final = 0.8
_TRUSTED_OCR: Final = 0.7
_STUB_CHARS: Final = 2500

_XFA_STUB: Final = re.compile(r"please wait\b.{0,400}\b(?:adobe|pdf viewer|reader)\b", re.IGNORECASE | re.DOTALL)
_RIGHTS_STUB: Final = re.compile(
    r"(?:protected|encrypted|rights[- ]managed)\b.{0,300}"
    r"\b(?:information protection|rights management|azure rms|irm|compatible (?:pdf )?(?:viewer|reader))\b",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(slots=True)
class _Reading:
    """What has been gathered so far, and what may still be spent."""

    limits: Limits
    pages: list[tuple[int, list[Line]]] = field(default_factory=list)
    ocr_pages: list[int] = field(default_factory=list)
    unreadable: list[int] = field(default_factory=list)
    suspicious: list[int] = field(default_factory=list)
    unread_scans: list[int] = field(default_factory=list)
    failed_scans: list[int] = field(default_factory=list)
    refusal: LimitExceeded | None = None
    chars: int = 0
    ocr_tried: int = 0

    def warnings(self) -> list[str]:
        notes = (
            ("could not be read", self.unreadable),
            ("text layer looks damaged", self.suspicious),
            (f"scans not read, at most {self.limits.ocr_max_pages} pages are", self.unread_scans),
            ("scans that the OCR engine failed on", self.failed_scans),
        )
        return [f"{what}: page {_ranges(pages)}" for what, pages in notes if pages]


def parse(data: bytes, suffix: str, limits: Limits) -> RawDocument:
    """Read a PDF.

    Raises:
        EncryptedDocument: it needs a password, a certificate or a rights server.
        UnsupportedFormat: a dynamic XFA form, which holds no pages.
        CorruptDocument: no engine reads it.
        LimitExceeded: more than ``limits.max_pages`` pages or ``limits.max_text_chars`` characters.
        ConfigurationError: a page needs OCR, which is on and not installed.
    """
    warnings: list[str] = []
    document = _open(data, warnings)
    if document is None:
        return _by_pypdf(data, limits, warnings, opened=False)
    try:
        if len(document) > limits.max_pages:
            raise LimitExceeded(f"has {len(document)} pages; the limit is {limits.max_pages}")
        result = _by_pdfium(document, limits, warnings)
    finally:
        document.close()
    return result if result.blocks else _by_pypdf(data, limits, result.warnings, opened=True, fallback=result)


def _open(data: bytes, warnings: list[str]) -> pdfium.PdfDocument | None:
    try:
        return pdfium.PdfDocument(data)
    except pdfium.PdfiumError as e:
        if e.err_code == pdfium_c.FPDF_ERR_PASSWORD:
            raise EncryptedDocument("the PDF needs a password") from e
        if e.err_code == pdfium_c.FPDF_ERR_SECURITY:
            raise EncryptedDocument("the PDF is protected by a security handler that is not a password") from e
    rebuilt = pdf_recovery.rebuild(data)
    if rebuilt is None:
        return None
    try:
        document = pdfium.PdfDocument(rebuilt)
    except pdfium.PdfiumError:
        return None
    warnings.append("the cross-reference table was damaged and has been rebuilt")
    return document


def _by_pdfium(document: pdfium.PdfDocument, limits: Limits, warnings: list[str]) -> RawDocument:
    reading = _Reading(limits)
    count = len(document)
    for number in range(1, count + 1):
        try:
            page = pdf_text.load(document, number - 1)
        except pdfium.PdfiumError:
            reading.unreadable.append(number)
            continue
        try:
            lines = _read_page(page, number, reading)
        except pdfium.PdfiumError:
            reading.unreadable.append(number)
            continue
        finally:
            page.close()
        reading.pages.append((number, lines))
        reading.chars += sum(len(x.text) for x in lines)
        if reading.chars > limits.max_text_chars:
            raise LimitExceeded(f"holds more than {limits.max_text_chars} characters of text")
    if reading.refusal is not None and reading.chars == 0:
        raise reading.refusal
    _refuse_stub(document, reading)
    attachments = document.count_attachments()
    if attachments > 0:
        warnings.append(f"{attachments} embedded files were not read")
    return RawDocument(
        blocks=page_layout.blocks(reading.pages),
        mime_type=_MIME,
        title=text_quality.useful_title(document.get_metadata_value("Title")),
        page_count=count,
        ocr_pages=reading.ocr_pages,
        warnings=[*warnings, *reading.warnings()],
        parser="pdfium+ocr" if reading.ocr_pages else "pdfium",
    )


def _read_page(page: pdfium.PdfPage, number: int, reading: _Reading) -> list[Line]:
    lines = pdf_text.lines(page)
    text = "\n".join(x.text for x in lines)
    quality = text_quality.judge(text)
    if _wants_ocr(page, text, quality):
        if reading.limits.ocr == "off" or reading.ocr_tried >= reading.limits.ocr_max_pages:
            reading.unread_scans.append(number)
        else:
            reading.ocr_tried += 1
            seen = _by_ocr(page, number, reading, lines, quality)
            if seen is not None:
                return seen
    if quality != "good":
        reading.suspicious.append(number)
    return lines


def _wants_ocr(page: pdfium.PdfPage, text: str, quality: text_quality.Quality) -> bool:
    letters = text_quality.letter_count(text)
    if letters == 0:
        return not pdf_text.is_blank(page)
    if quality == "garbled":
        return True
    if quality == "poor":
        return pdf_text.image_share(page) >= _FULL_PAGE_SHARE
    return letters < _FEW_LETTERS and pdf_text.image_share(page) >= _SCAN_SHARE


def _by_ocr(
    page: pdfium.PdfPage, number: int, reading: _Reading, lines: list[Line], quality: text_quality.Quality
) -> list[Line] | None:
    """Return the lines seen on the page, or None when the text layer is the better reading."""
    image = pdf_text.render(page, ocr.DPI / 72, ocr.MAX_PIXELS)
    try:
        seen = ocr.read_page(image, reading.limits.languages)
    except ConfigurationError:
        raise
    except LimitExceeded as e:  # one page's scan shall not cost the text of the others
        reading.refusal = e
        reading.failed_scans.append(number)
        return None
    except Exception:  # whatever a model runtime raises on one image
        reading.failed_scans.append(number)
        return None
    had = text_quality.letter_count("\n".join(x.text for x in lines))
    has = text_quality.letter_count(seen.text)
    if has == 0 or (had and (seen.confidence < _TRUSTED_OCR or has < 0.5 * had)):
        return None
    reading.ocr_pages.append(number)
    if quality != "good":
        return seen.lines
    folded = _fold(seen.text)
    return [x for x in lines if _fold(x.text) not in folded] + seen.lines


def _by_pypdf(
    data: bytes, limits: Limits, warnings: list[str], *, opened: bool, fallback: RawDocument | None = None
) -> RawDocument:
    texts = pdf_recovery.read_with_pypdf(data, limits)
    if texts is None or not any(t.strip() for t in texts):
        if fallback is not None and opened:
            return fallback
        raise CorruptDocument("no PDF engine can read it")
    blocks = [Block("text", p, number) for number, text in enumerate(texts, start=1) for p in paragraphs(text)]
    return RawDocument(blocks=blocks, mime_type=_MIME, page_count=len(texts), warnings=warnings, parser="pypdf")


def _refuse_stub(document: pdfium.PdfDocument, reading: _Reading) -> None:
    """Some PDFs hold only a page that says which program could open the real content."""
    if len(reading.pages) > 2 or reading.chars > _STUB_CHARS:
        return
    text = "\n".join(x.text for _, lines in reading.pages for x in lines)
    if document.get_formtype() == pdfium_c.FORMTYPE_XFA_FULL and _XFA_STUB.search(text):
        raise UnsupportedFormat("a dynamic XFA form without pages", cure="print it to a plain PDF")
    if _RIGHTS_STUB.search(text) and (document.count_attachments() > 0 or reading.chars < _STUB_CHARS // 2):
        raise EncryptedDocument("a cover page of a rights-managed document")


def _fold(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum())


def _ranges(pages: list[int]) -> str:
    """Write [1, 2, 3, 7] as ``1-3, 7``."""
    parts: list[str] = []
    start = previous = pages[0]
    for page in [*pages[1:], -1]:
        if page == previous + 1:
            previous = page
            continue
        parts.append(str(start) if start == previous else f"{start}-{previous}")
        start = previous = page
    return ", ".join(parts)
