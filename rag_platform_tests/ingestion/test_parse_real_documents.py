"""Real documents: the sentence that must be found is found; broken and hostile ones end as they should."""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from rag_platform.errors import DocumentError
from rag_platform.ingestion.parse import ParserPool
from rag_platform.ingestion.parsers.base import Limits
from rag_platform.records import ParsedDocument

DATA = Path(__file__).parents[2].parent / "shared" / "data"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.exists(), reason="the shared documents are not next to this checkout"),
]

# What we do not find, and why that is right. At most 5 % of docs_good.
NOT_FOUND = {
    "tika__testMHTMLFirefox.mhtml": "the sentence stands in a comment of a style sheet, which no reader sees",
    "unst__winter-sports.epub": "the sentence is the <title> of each chapter's file, which no reader shows",
    "unst__korean-text-with-tables.pdf": "the sentence runs through a line break inside a bullet of a two-column leaflet",
}
# Where the outcome differs from the manifest's verdict, and why.
DIFFERENT: dict[str, str] = {}


def rows(folder: str) -> dict[str, dict[str, str]]:
    with (DATA / folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def fold(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())


@pytest.fixture(scope="module")
def pool() -> Iterator[ParserPool]:
    with ParserPool(Limits(ocr="off"), 2) as opened:
        yield opened


def results(pool: ParserPool, folder: str, names: list[str]) -> dict[str, ParsedDocument | DocumentError]:
    items = ((name, name, (DATA / folder / name).read_bytes) for name in names)
    return {key: result for key, result, _ in pool.parse_many(items)}


def test_good_documents_hold_the_expected_sentences(pool: ParserPool) -> None:
    """Every expected sentence is in the text, apart from the listed exceptions."""
    manifest = rows("docs_good")
    names = [n for n, row in manifest.items() if row["extraction"] != "ocr"]  # test_ocr.py judges those
    assert len(names) >= 100
    missing = {}
    for name, result in results(pool, "docs_good", names).items():
        if isinstance(result, DocumentError):
            missing[name] = str(result)
            continue
        text = fold(result.text)
        lost = [s for s in manifest[name]["expected"].split(" || ") if fold(s) not in text]
        if lost:
            missing[name] = f"{len(lost)} sentences not found"
    assert set(missing) == set(NOT_FOUND), missing
    assert len(NOT_FOUND) <= 0.05 * len(manifest)


def test_bad_documents_end_as_they_should(pool: ParserPool) -> None:
    """No crash, no hang, nothing but a document or a DocumentError, and the manifest's verdict."""
    manifest = rows("docs_bad")
    names = list(manifest)
    wrong = {}
    for name, result in results(pool, "docs_bad", names).items():
        failed = isinstance(result, DocumentError)
        should = manifest[name]["should"]
        if should != "parse-or-dead-letter" and (should == "dead-letter") != failed:
            wrong[name] = str(result) if failed else "was parsed"
        if not failed:
            assert "root:" not in result.text
            assert "\x00" not in result.text
    assert set(wrong) == set(DIFFERENT), wrong


def test_what_must_and_must_not_be_in_the_text(pool: ParserPool) -> None:
    """Damaged bytes leave their sentence, scripts and hidden XBRL headers leave nothing."""
    bad = results(
        pool, "docs_bad", ["gen__invalid_utf8.txt", "unst__umlauts-non-utf8.md", "tika__testHTMLBadScript.html"]
    )
    assert "Falcon-7" in bad["gen__invalid_utf8.txt"].text  # type: ignore[union-attr]
    assert "können" in bad["unst__umlauts-non-utf8.md"].text  # type: ignore[union-attr]
    assert "alert" not in bad["tika__testHTMLBadScript.html"].text  # type: ignore[union-attr]
    good = results(pool, "docs_good", ["unst__example-10k.html", "docling__textbox.docx", "docling__word_tables.docx"])
    report, boxes, tables = (good[n] for n in good)
    by_name = {n: r for n, r in good.items() if isinstance(r, ParsedDocument)}
    assert "iso4217" not in by_name["unst__example-10k.html"].text
    sentence = fold("If necessary, provide health education and important reminders at the kindergarten")
    assert fold(by_name["docling__textbox.docx"].text).count(sentence) == 1
    assert "Header 0.0 | Header 0.1 | Header 0.2" in by_name["docling__word_tables.docx"].text
    assert report and boxes and tables
