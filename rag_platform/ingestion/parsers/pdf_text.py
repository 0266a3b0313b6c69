"""One pdfium page as lines with positions, in pdfium's content order.

pdfium marks a word cut at a line end with U+FFFE and runs the halves together; the hyphen and the line
end are put back. Positions are asked only of the first and last character of a line: 60 lines cost 2 ms.
"""

from __future__ import annotations

import ctypes
import re
from typing import Any, Final

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c

from rag_platform.ingestion.parsers.page_layout import Line

_LINE: Final = re.compile(r"[^\r\n\ufffe]+\ufffe?")
_BOLD: Final = re.compile(rb"bold|black|heavy|demi", re.IGNORECASE)
_MAX_ANNOTATIONS: Final = 2000
_MAX_IMAGES: Final = 500
_DRAWN_ANNOTATIONS: Final = frozenset((pdfium_c.FPDF_ANNOT_WIDGET, pdfium_c.FPDF_ANNOT_FREETEXT))
_BLANK_CONTRAST: Final = 24
_BLANK_SCALE: Final = 0.5


def load(document: pdfium.PdfDocument, index: int) -> pdfium.PdfPage:
    """Load a page; filled-in form fields and text notes become part of its content.

    Raises:
        PdfiumError: the page cannot be loaded.
    """
    page = document[index]
    if not _has_drawn_annotations(page):
        return page
    flattened = pdfium_c.FPDFPage_Flatten(page, pdfium_c.FLAT_NORMALDISPLAY) == pdfium_c.FLATTEN_SUCCESS
    if not flattened:
        return page
    page.close()
    return document[index]


def lines(page: pdfium.PdfPage) -> list[Line]:
    """Return the non-empty lines of a page; coordinates are points of the page as it is shown."""
    textpage = page.get_textpage()
    try:
        text = textpage.get_text_range()
        place = _Placement(page, textpage)
        found = []
        for match in _LINE.finditer(text):
            raw = match.group()
            bare = raw.rstrip("\ufffe").strip()
            if not bare:
                continue
            first = match.start() + len(raw) - len(raw.lstrip())
            # text indices count UTF-16 units, as Python's do unless a character lies beyond the BMP
            last = first + len(bare) - 1
            left, base, size = place.first(first)
            bare = bare + "-" if raw.endswith("\ufffe") else bare
            found.append(Line(bare, left, place.right(last, left), base, size, place.is_bold(first, last)))
        return found
    finally:
        textpage.close()


class _Placement:
    """Where characters are on the page as shown, from pdfium's boxes in unrotated page space."""

    def __init__(self, page: pdfium.PdfPage, textpage: pdfium.PdfTextPage) -> None:
        self._textpage = textpage
        self._rotation = page.get_rotation() % 360
        self._width, self._height = page.get_size()  # as shown
        self._rect = pdfium_c.FS_RECTF()
        self._name = ctypes.create_string_buffer(200)

    def _box(self, text_index: int) -> tuple[float, float, float, float]:
        """(left, top, right, bottom), y growing downwards; zeros where pdfium knows none."""
        index = pdfium_c.FPDFText_GetCharIndexFromTextIndex(self._textpage, text_index)
        if index < 0 or not pdfium_c.FPDFText_GetLooseCharBox(self._textpage, index, ctypes.byref(self._rect)):
            return 0.0, 0.0, 0.0, 0.0
        x0, y0, x1, y1 = self._rect.left, self._rect.bottom, self._rect.right, self._rect.top
        if self._rotation == 90:
            return y0, x0, y1, x1
        if self._rotation == 180:
            return self._width - x1, y0, self._width - x0, y1
        if self._rotation == 270:
            return self._width - y1, self._height - x1, self._width - y0, self._height - x0
        return x0, self._height - y1, x1, self._height - y0

    def first(self, text_index: int) -> tuple[float, float, float]:
        """Return (left, base, size) of a line's first character."""
        left, top, _, bottom = self._box(text_index)
        return left, bottom, max(0.0, bottom - top)

    def right(self, text_index: int, left: float) -> float:
        return max(left, self._box(text_index)[2])

    def is_bold(self, first: int, last: int) -> bool:
        """Return whether a line's first and last characters are in a font called bold."""
        return self._is_bold(first) and self._is_bold(last)

    def _is_bold(self, text_index: int) -> bool:
        index = pdfium_c.FPDFText_GetCharIndexFromTextIndex(self._textpage, text_index)
        if index < 0:
            return False
        length = pdfium_c.FPDFText_GetFontInfo(self._textpage, index, self._name, len(self._name), None)
        return 0 < length <= len(self._name) and _BOLD.search(self._name.raw[:length]) is not None


def image_share(page: pdfium.PdfPage) -> float:
    """Return the share of the page (0 to 1) that its images cover, overlaps counted twice."""
    width, height = page.get_size()
    if width <= 0 or height <= 0:
        return 0.0
    covered = 0.0
    for count, item in enumerate(page.get_objects(filter=[pdfium_c.FPDF_PAGEOBJ_IMAGE], max_depth=4)):
        if count >= _MAX_IMAGES:
            break
        try:
            left, bottom, right, top = item.get_bounds()
        except pdfium.PdfiumError:
            continue
        covered += max(0.0, right - left) * max(0.0, top - bottom)
    return min(1.0, float(covered / (width * height)))


def is_blank(page: pdfium.PdfPage) -> bool:
    """Return whether a small rendering shows one colour only."""
    bitmap = render(page, _BLANK_SCALE, 500_000, grayscale=True)
    return int(bitmap.max()) - int(bitmap.min()) < _BLANK_CONTRAST


def render(page: pdfium.PdfPage, scale: float, max_pixels: int, *, grayscale: bool = False) -> Any:
    """Return the page as shown: uint8, shape (height, width, 3) BGR or (height, width) grey, at ``scale``
    pixels a point or less, so that it has at most ``max_pixels``."""
    width, height = page.get_size()
    pixels = max(1.0, width * height) * scale * scale
    if pixels > max_pixels:
        scale *= (max_pixels / pixels) ** 0.5
    longest = max(width, height) * scale
    if longest > 10_000:  # a till roll: bounded area, unbounded length
        scale *= 10_000 / longest
    bitmap = page.render(scale=scale, grayscale=grayscale, rev_byteorder=False)
    try:
        pixels_of = bitmap.to_numpy()
        if pixels_of.ndim == 3 and not grayscale:
            pixels_of = pixels_of[:, :, :3]
        return pixels_of.copy()
    finally:
        bitmap.close()


def _has_drawn_annotations(page: pdfium.PdfPage) -> bool:
    for index in range(min(pdfium_c.FPDFPage_GetAnnotCount(page), _MAX_ANNOTATIONS)):
        annotation = pdfium_c.FPDFPage_GetAnnot(page, index)
        if not annotation:
            continue
        subtype = pdfium_c.FPDFAnnot_GetSubtype(annotation)
        pdfium_c.FPDFPage_CloseAnnot(annotation)
        if subtype in _DRAWN_ANNOTATIONS:
            return True
    return False
