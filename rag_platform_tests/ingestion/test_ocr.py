"""OCR: direction, order, images of all formats, and the bounds."""

from __future__ import annotations

import functools
import io
import multiprocessing
import resource
import sys
from email.message import EmailMessage
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import pytest

from rag_platform.errors import ConfigurationError, CorruptDocument, EmptyDocument, LimitExceeded, UnsupportedFormat
from rag_platform.ingestion.parsers import dispatch, image, ocr, tesseract
from rag_platform.ingestion.parsers.assemble import assemble
from rag_platform.ingestion.parsers.base import Limits
from rag_platform.ingestion.parsers.reading_order import Box, rows

SENTENCES = [
    "The quick brown fox jumps over the lazy dog",
    "Seven ships sailed south in September",
    "Invoices are due within thirty days",
]


def page(lines: list[str] = SENTENCES, size: tuple[int, int] = (800, 740)) -> PIL.Image.Image:
    picture = PIL.Image.new("RGB", size, "white")
    draw = PIL.ImageDraw.Draw(picture)
    font = PIL.ImageFont.load_default(size=32)
    for i, line in enumerate(lines):
        draw.text((60, 60 + 70 * i), line, fill="black", font=font)
    return picture


def encoded(picture: PIL.Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def words(text: str) -> list[str]:
    return text.lower().split()


@pytest.mark.parametrize("turned", [0, 90, 180, 270])
def test_pages_are_read_whichever_way_up(turned: int) -> None:
    """A page turned by 90, 180 or 270 degrees yields the same sentences in the same order, and how it
    was turned."""
    pixels = np.asarray(page())[:, :, ::-1]
    reading = ocr.read_page(np.ascontiguousarray(np.rot90(pixels, -turned // 90)), "eng")
    assert words(reading.text) == words(" ".join(SENTENCES))
    assert reading.rotation == turned
    assert reading.confidence > 0.9


@pytest.mark.parametrize("missing", ["rapidocr", "onnxruntime", "cv2"])
def test_a_missing_engine_is_no_fault_of_the_document(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image, a scanned PDF and a mail with an image all end with the same ConfigurationError, which says
    what to install; none becomes a dead letter, none loses its scans silently."""
    for name in [n for n in sys.modules if n == missing or n.startswith(f"{missing}.") or n.startswith("rapidocr.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.setattr(ocr, "_engine", functools.cache(ocr._engine.__wrapped__))
    png = encoded(page(size=(480, 480)), "PNG")
    scan = io.BytesIO()
    page().save(scan, "PDF")
    letter = EmailMessage()
    letter["Subject"] = "a scan"
    letter.set_content("Please find the scan attached.")
    letter.add_attachment(png, maintype="image", subtype="png", filename="scan.png")
    for data, suffix in ((png, ".png"), (scan.getvalue(), ".pdf"), (letter.as_bytes(), ".eml")):
        with pytest.raises(ConfigurationError, match=r"OCR cannot be loaded .*pip install rapidocr .*RAG_OCR=off"):
            dispatch.parse_here(data, suffix, Limits())


def test_an_empty_page_has_no_lines() -> None:
    """Nothing on the page gives nothing, not an error."""
    assert ocr.read_page(np.full((300, 300, 3), 255, np.uint8)) == ocr.PageReading([])


def test_tools_are_versions_without_heavy_imports() -> None:
    """The fingerprint of the OCR stage names the engine's version."""
    found = ocr.tools()
    assert found["rapidocr"].startswith("3.")
    assert all(isinstance(v, str) for v in found.values())


def test_columns_of_prose_are_read_one_after_the_other() -> None:
    """A heading across the page comes first, then the left column, then the right one."""
    heading = [Box(50, 10, 950, 50)]
    left = [Box(50, 100 + 40 * i, 470, 130 + 40 * i) for i in range(6)]
    right = [Box(530, 100 + 40 * i, 950, 130 + 40 * i) for i in range(6)]
    boxes = [b for pair in zip(left, right, strict=True) for b in pair] + heading
    assert rows(boxes) == [[12], [0], [2], [4], [6], [8], [10], [1], [3], [5], [7], [9], [11]]


def test_cells_of_a_table_are_read_across() -> None:
    """Short boxes side by side are one row, not columns."""
    boxes = [Box(50 + 300 * c, 100 + 40 * r, 130 + 300 * c, 130 + 40 * r) for r in range(5) for c in range(3)]
    assert rows(boxes) == [[3 * r, 3 * r + 1, 3 * r + 2] for r in range(5)]


@pytest.mark.parametrize(
    ("kind", "suffix"), [("PNG", ".png"), ("JPEG", ".jpg"), ("BMP", ".bmp"), ("WEBP", ".webp"), ("GIF", ".gif")]
)
def test_images_of_all_formats(kind: str, suffix: str) -> None:
    """Each image format yields the text that the image shows, as page 1."""
    data = encoded(page(["Meeting minutes"], (480, 480)), kind)
    document = assemble(image.parse(data, suffix, Limits()), Limits())
    assert words(document.text) == ["meeting", "minutes"]
    assert (document.page_count, document.ocr_pages, document.mime_type) == (1, (1,), f"image/{kind.lower()}")


def test_every_page_of_a_tiff_is_read_within_the_limit() -> None:
    """A tiff's pages keep their numbers; pages beyond the OCR limit are a warning, beyond the page limit
    an error."""
    pages = [page([f"Sheet number {word}"], (480, 480)) for word in ("one", "two", "three")]
    data = encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    raw = image.parse(data, ".tiff", Limits(ocr_max_pages=2))
    assert [(b.page, words(b.text)[-1]) for b in raw.blocks] == [(1, "one"), (2, "two")]
    assert raw.page_count == 3
    assert len(raw.warnings) == 1
    with pytest.raises(LimitExceeded):
        image.parse(data, ".tiff", Limits(max_pages=2))


def test_transparent_and_deep_images_are_readable() -> None:
    """Black text on a transparent ground and 16-bit greys are not turned into one flat colour."""
    clear = page(["Transparent ground"], (480, 480)).convert("L")
    alpha = clear.point(lambda v: 255 - v)
    layered = PIL.Image.merge("LA", (PIL.Image.new("L", clear.size, 0), alpha)).convert("RGBA")
    deep = PIL.Image.fromarray(np.asarray(page(["Sixteen bits deep"], (480, 480)).convert("L")).astype(np.uint16) * 200)
    for picture, expected in ((layered, "transparent ground"), (deep, "sixteen bits deep")):
        raw = image.parse(encoded(picture, "PNG"), ".png", Limits())
        assert words(" ".join(b.text for b in raw.blocks)) == expected.split()


def test_what_is_no_readable_image() -> None:
    """Damaged, oversized and textless images, and images while OCR is off, each have their own error."""
    data = encoded(page(), "PNG")
    with pytest.raises(CorruptDocument):
        image.parse(data[: len(data) // 2], ".png", Limits())
    with pytest.raises(CorruptDocument):
        image.parse(b"\x89PNG\r\n\x1a\n" + b"\x00" * 100, ".png", Limits())
    with pytest.raises(UnsupportedFormat):
        image.parse(data, ".png", Limits(ocr="off"))
    with pytest.raises(LimitExceeded):
        image.parse(encoded(PIL.Image.new("1", (20_000, 20_000)), "PNG"), ".png", Limits())
    with pytest.raises(EmptyDocument):
        assemble(image.parse(encoded(PIL.Image.new("RGB", (200, 200), "white"), "PNG"), ".png", Limits()), Limits())


def test_tesseracts_table_becomes_lines() -> None:
    """Words of one line are joined with their mean confidence; boxes cover them."""
    tsv = (
        "level\tpage_num\tblock_num\tpar_num\tline_num\tword_num\tleft\ttop\twidth\theight\tconf\ttext\n"
        "4\t1\t1\t1\t1\t0\t10\t10\t200\t20\t-1\t\n"
        "5\t1\t1\t1\t1\t1\t10\t10\t90\t20\t90\tשלום\n"
        "5\t1\t1\t1\t1\t2\t110\t12\t100\t18\t70\tעולם\n"
        '5\t1\t1\t1\t2\t1\t10\t50\t90\t20\t96\t"quoted\n'
    )
    boxes, texts, scores = tesseract._lines(tsv)
    assert texts == ["שלום עולם", '"quoted']
    assert boxes[0] == Box(10, 10, 210, 30)
    assert scores == pytest.approx([0.8, 0.96])


def _confined(memory_mb: int, answers: Any) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    pixels = np.asarray(page(SENTENCES * 8, (1700, 2300)))[:, :, ::-1]
    try:
        reading = ocr.read_page(np.ascontiguousarray(pixels))
        answers.put((len(reading.lines), reading.rotation))
    except LimitExceeded as e:
        answers.put(str(e))


@pytest.mark.slow
@pytest.mark.parametrize(("memory_mb", "expected"), [(2048, (24, 0)), (700, "RAG_PARSE_MEMORY_MB")])
@pytest.mark.timeout(90)
def test_memory_limit(memory_mb: int, expected: Any) -> None:
    """A full page fits into the default address space; too little of it is a LimitExceeded that names
    the cure."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=_confined, args=(memory_mb, answers))
    process.start()
    answer = answers.get(timeout=80)
    process.join(10)
    assert expected in answer if isinstance(expected, str) else answer == expected
