"""PDF: real files, damaged and hostile ones, and small ones made here."""

from __future__ import annotations

import csv
import io
import multiprocessing
import resource
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from reportlab.lib.pagesizes import A4
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas

from rag_platform.errors import CorruptDocument, DocumentError, EmptyDocument, EncryptedDocument, LimitExceeded
from rag_platform.ingestion.parsers import ocr, page_layout, pdf, text_quality
from rag_platform.ingestion.parsers.assemble import assemble
from rag_platform.ingestion.parsers.base import Limits
from rag_platform.ingestion.parsers.page_layout import Line
from rag_platform.records import ParsedDocument

DATA = Path(__file__).parents[2].parent / "shared" / "data"
SECONDS_PER_FILE = 60
# Scans: OCR takes seconds a page.
SCANS = {
    "docling__ocr_test_rotated_90.pdf",
    "tika__testOCR.pdf",
    "unst__loremipsum-flat.pdf",
    "unst__single_table.pdf",
    "unst__pdf-with-ocr-text.pdf",
}


def manifest(folder: str) -> list[dict[str, str]]:
    path = DATA / folder / "manifest.csv"
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as f:
        return [row for row in csv.DictReader(f) if row["path"].lower().endswith(".pdf")]


def fold(text: str) -> str:
    """NFKC, case and white space folded; control characters, which no clean text keeps, dropped."""
    text = "".join(c for c in text if c.isspace() or unicodedata.category(c) != "Cc")
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def read(data: bytes, **limits: Any) -> ParsedDocument:
    bound = Limits(**limits)
    return assemble(pdf.parse(data, ".pdf", bound), bound)


def made(*pages: list[tuple[float, float, float, str]], **options: Any) -> bytes:
    """A PDF of pages of (x, y from the top, size, text)."""
    out = io.BytesIO()
    canvas = Canvas(out, pagesize=A4, invariant=1, **options)
    for page in pages:
        for x, y, size, text in page:
            canvas.setFont("Helvetica", size)
            canvas.drawString(x, A4[1] - y, text)
        canvas.showPage()
    canvas.save()
    return out.getvalue()


def prose(x: float, top: float, lines: list[str], size: float = 11) -> list[tuple[float, float, float, str]]:
    return [(x, top + 1.2 * size * i, size, line) for i, line in enumerate(lines)]


GOOD = manifest("docs_good")
BAD = manifest("docs_bad")


@pytest.mark.skipif(not GOOD, reason="shared/data is not there")
@pytest.mark.timeout(SECONDS_PER_FILE)
@pytest.mark.parametrize(
    "row", [pytest.param(r, id=r["path"]) for r in GOOD if r["path"] not in SCANS] or [pytest.param({}, id="absent")]
)
def test_real_files_yield_their_known_sentences(row: dict[str, str]) -> None:
    """Each real PDF with a text layer yields the sentences that its manifest names."""
    found = fold(read((DATA / "docs_good" / row["path"]).read_bytes()).text)
    assert [e for e in row["expected"].split(" || ") if fold(e) not in found] == []


@pytest.mark.slow
@pytest.mark.skipif(not GOOD, reason="shared/data is not there")
@pytest.mark.parametrize(
    "row", [pytest.param(r, id=r["path"]) for r in GOOD if r["path"] in SCANS] or [pytest.param({}, id="absent")]
)
@pytest.mark.timeout(SECONDS_PER_FILE)
def test_real_scans_are_read_by_ocr(row: dict[str, str]) -> None:
    """Pages without a text layer, with a worthless one, or lying on their side are read by OCR."""
    document = read((DATA / "docs_good" / row["path"]).read_bytes())
    found = fold(document.text)
    assert [e for e in row["expected"].split(" || ") if fold(e) not in found] == []
    assert document.ocr_pages == (1,)


@pytest.mark.skipif(not BAD, reason="shared/data is not there")
@pytest.mark.timeout(SECONDS_PER_FILE + 30)
def test_bad_files_are_judged_as_their_manifest_says() -> None:
    """Damaged, encrypted, fuzzed and cyclic PDFs parse or dead-letter as reviewed, in bounded time, and
    never crash the process or raise anything but a DocumentError."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=_all_outcomes, args=([r["path"] for r in BAD], answers))
    process.start()
    got = [answers.get(timeout=SECONDS_PER_FILE) for _ in BAD]
    process.join(10)
    assert process.exitcode == 0
    wrong: list[str] = []
    for row, (name, verdict, detail) in zip(BAD, got, strict=True):
        assert name == row["path"]
        if row["should"] not in (verdict, "parse-or-dead-letter"):
            wrong.append(f"{name}: {verdict} ({detail}), should {row['should']}")
        if "encrypted-pdf" in row.values() and detail != "EncryptedDocument":
            wrong.append(f"{name}: {detail}, should be EncryptedDocument")
    assert wrong == []


def _all_outcomes(names: list[str], answers: Any) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS_PER_FILE, SECONDS_PER_FILE))
    resource.setrlimit(resource.RLIMIT_AS, (2048 << 20, 2048 << 20))
    for name in names:
        try:
            answers.put((name, "parse", str(len(read((DATA / "docs_bad" / name).read_bytes()).text))))
        except DocumentError as e:
            answers.put((name, "dead-letter", type(e).__name__))


@pytest.mark.skipif(not BAD, reason="shared/data is not there")
def test_a_mojibake_text_layer_is_flagged() -> None:
    """A text layer whose letters stutter is kept where OCR cannot do better, with a warning."""
    document = read((DATA / "docs_bad" / "docling__right_to_left_02.pdf").read_bytes())
    assert document.warnings == ("text layer looks damaged: page 1",)


def test_paragraphs_pages_and_headings() -> None:
    """Wrapped lines become one paragraph, a gap begins the next, large short lines are headings, and
    every element knows its page."""
    first = [
        (72, 80, 20, "Annual Report"),
        *prose(
            72,
            120,
            ["The committee met twice in the spring and", "decided to continue the programme for the", "coming year."],
        ),
        *prose(72, 190, ["A second paragraph follows after a gap."]),
    ]
    document = read(made(first, prose(72, 80, ["The other page holds this line."]), title=None))
    parts = [(e.kind, e.page, document.text[e.start : e.end]) for e in document.elements]
    assert parts == [
        ("heading", 1, "Annual Report"),
        ("text", 1, "The committee met twice in the spring and decided to continue the programme for the coming year."),
        ("text", 1, "A second paragraph follows after a gap."),
        ("text", 2, "The other page holds this line."),
    ]
    assert document.page_count == 2
    assert document.ocr_pages == ()


def test_two_columns_keep_their_order() -> None:
    """The left column comes whole before the right one."""
    left = [f"left column line {i} goes on to its end" for i in range(8)]
    right = [f"right column line {i} goes on to its end" for i in range(8)]
    text = read(made([*prose(72, 100, left), *prose(320, 100, right)])).text
    assert text.index("left column line 7") < text.index("right column line 0")
    assert fold(" ".join(left)) in fold(text)


def test_words_cut_at_a_line_end_stay_as_printed() -> None:
    """A hyphen at a line end, which pdfium drops, is put back: exact quotations stay findable."""
    text = read(
        made(prose(72, 100, ["sed diam voluptua at vero eos et no sea taki-", "mata sanctus est lorem ipsum dolor."]))
    ).text
    assert "sea taki-\nmata" in text


def test_a_user_password_is_an_encrypted_document() -> None:
    """A PDF that needs a password says so; one with an owner password only is read."""
    page = prose(72, 100, ["Nobody may read this sentence."])
    locked = made(page, encrypt=StandardEncryption("open", ownerPassword="own", strength=128))
    with pytest.raises(EncryptedDocument):
        read(locked)
    restricted = made(page, encrypt=StandardEncryption("", ownerPassword="own", canCopy=0, strength=128))
    assert read(restricted).text == "Nobody may read this sentence."


def test_a_cut_off_tail_is_repaired() -> None:
    """Without cross-reference table and trailer the objects are found all the same, with a warning."""
    whole = made(prose(72, 100, ["The tail of this file is gone."]), pageCompression=0)
    document = read(whole[: whole.rindex(b"xref", 0, whole.rindex(b"startxref"))])
    assert document.text == "The tail of this file is gone."
    assert "rebuilt" in document.warnings[0]


def test_limits_on_pages_and_characters() -> None:
    """More pages or characters than allowed are a LimitExceeded."""
    data = made(*[prose(72, 100, [f"Page number {i} with some text."]) for i in range(4)])
    with pytest.raises(LimitExceeded):
        read(data, max_pages=3)
    with pytest.raises(LimitExceeded):
        read(data, max_text_chars=50)


@pytest.mark.parametrize(
    "data", [b"", b"%PDF-1.7\n", b"\x00" * 5000, b"%PDF-1.4\n1 0 obj\n<</Type /Catalog>>\nendobj\n"]
)
def test_no_pdf_is_a_corrupt_document(data: bytes) -> None:
    """Bytes that no engine reads are a CorruptDocument, or empty, and nothing else."""
    with pytest.raises((CorruptDocument, EmptyDocument)):
        read(data)


def test_blank_pages_need_no_ocr(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that shows nothing is not sent to OCR; a document of such pages is empty."""
    monkeypatch.setattr(ocr, "read_page", lambda *a, **k: pytest.fail("OCR on a blank page"))
    with pytest.raises(EmptyDocument):
        read(made([], []))


def _scan(pages: int) -> bytes:
    """Pages that hold only an image of noise: scans, as far as anybody can tell without looking."""
    import numpy as np
    import PIL.Image

    noise = np.random.default_rng(7).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    out = io.BytesIO()
    canvas = Canvas(out, pagesize=A4, invariant=1)
    for _ in range(pages):
        canvas.drawImage(ImageReader(PIL.Image.fromarray(noise)), 0, 0, *A4)
        canvas.showPage()
    canvas.save()
    return out.getvalue()


def test_ocr_is_bounded_in_pages_and_can_be_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most ``ocr_max_pages`` pages are read by OCR and the others are named in a warning; with OCR
    off none is."""
    calls: list[int] = []

    def fake(image: Any, languages: str) -> ocr.PageReading:
        calls.append(1)
        return ocr.PageReading([Line("seen by the engine", 0, 100, 50, 20)], 0.99)

    monkeypatch.setattr(ocr, "read_page", fake)
    document = read(_scan(5), ocr_max_pages=2)
    assert (len(calls), document.ocr_pages) == (2, (1, 2))
    assert document.warnings == ("scans not read, at most 2 pages are: page 3-5",)
    with pytest.raises(EmptyDocument):
        read(_scan(2), ocr="off")
    assert len(calls) == 2


def test_a_scan_that_ocr_cannot_take_costs_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the OCR engine fails, pages with text are kept and the scan is named; a document of scans
    alone fails with the engine's own limit."""

    def refuse(*args: Any, **kwargs: Any) -> ocr.PageReading:
        raise LimitExceeded("not enough memory for OCR")

    def fail(*args: Any, **kwargs: Any) -> ocr.PageReading:
        raise RuntimeError("inside the engine")

    out = io.BytesIO()
    canvas = Canvas(out, pagesize=A4, invariant=1)
    canvas.drawString(72, 700, "This page has text.")
    canvas.showPage()
    canvas.rect(100, 100, 200, 200, fill=1)
    canvas.showPage()
    canvas.save()
    for broken in (refuse, fail):
        monkeypatch.setattr(ocr, "read_page", broken)
        document = read(out.getvalue())
        assert document.text == "This page has text."
        assert document.warnings == ("scans that the OCR engine failed on: page 2",)
    monkeypatch.setattr(ocr, "read_page", refuse)
    with pytest.raises(LimitExceeded):
        read(_scan(1))


def test_titles_that_say_nothing_are_dropped() -> None:
    """File names, placeholders and program names are no titles."""
    useless = [
        "",
        "untitled",
        "Untitled 3",
        "Microsoft Word - report.docx",
        "scan0001.jpg",
        "Presentation1",
        "12/07/2003",
        "\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd",
    ]
    assert [text_quality.useful_title(t) for t in useless] == [None] * len(useless)
    assert text_quality.useful_title("Microsoft Word - Annual Report 2020") == "Annual Report 2020"


def test_text_quality() -> None:
    """Private-use and replacement characters make text garbled; symbols inside words make it poor; prose,
    code, tables and other scripts are good."""
    assert text_quality.judge("\ue001\ue002\ue003 \ue004\ue005\ue006\ue007\ue008 abc") == "garbled"
    assert (
        text_quality.judge("s*r;tiiR» n»Bfl H^uid £ug»r " * 3 + "and some words that are as they should be here " * 4)
        == "poor"
    )
    for text in (
        "The cost is $5/unit (net), e.g. 12.5% — see https://a.example/x?y=1&z=2 for more about R&D. " * 3,
        "for (int i=0; i<n; i++) { total += values[i]; } return foo->bar(baz, *qux); x = a.b.c(d) " * 3,
        "البرمجة بلغة وتساعد في إيجاد حلول فعالة للمشكالت تحليل البيانات مما يسهل على المحللين والعلماء إجراء تحليالت "
        * 2,
        "적립한도 없이 커피전문점·제과점·편의점 2% 빅포인트 적립 무이자할부, 다이어트할부, 삼성카드 할인이 적용된 일시불 "
        * 3,
    ):
        assert text_quality.judge(text) == "good"


def test_table_rows_do_not_run_on() -> None:
    """Lines full of numbers and entries of a table of contents keep their line ends."""
    rows = ["2019 12.5 64,058 97", "2020 13.1 65,112 98", "2021 14.0 66,001 99"]
    lines = [Line(t, 0, 200, 20.0 * i, 12) for i, t in enumerate(rows)]
    assert [b.text for b in page_layout.blocks([(1, lines)])] == ["\n".join(rows)]
