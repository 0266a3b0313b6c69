"""Text that leaves the parsers is clean, and the light formats keep what was written."""

from __future__ import annotations

import contextlib
import itertools
import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_platform.errors import EmptyDocument, LimitExceeded, UnsupportedFormat
from rag_platform.ingestion.parsers import captions, delimited, markdown_text, plain_text, structured
from rag_platform.ingestion.parsers.assemble import assemble, clean
from rag_platform.ingestion.parsers.base import Block, Limits, RawDocument
from rag_platform.ingestion.parsers.encoding import decode
from rag_platform.records import ParsedDocument

LIMITS = Limits()
ANY_TEXT = st.text(alphabet=st.characters(categories=None), max_size=60)  # surrogates and controls included
KINDS = st.sampled_from(["title", "heading", "text", "list_item", "table", "code", "other"])
BLOCKS = st.lists(
    st.builds(Block, kind=KINDS, text=ANY_TEXT, level=st.integers(-1, 12), tight=st.booleans(), page=st.none()),
    max_size=12,
)


def assert_clean(document: ParsedDocument) -> None:
    text = document.text
    assert text == unicodedata.normalize("NFC", text)
    assert text.strip()
    text.encode("utf-8")  # no lone surrogate
    assert not [c for c in text if unicodedata.category(c) == "Cc" and c not in "\n\t"]
    position = 0
    for element in document.elements:
        assert position <= element.start < element.end <= len(text)
        assert text[position : element.start].strip() == ""
        position = element.end
    assert position == len(text)


@given(BLOCKS)
@settings(max_examples=300, deadline=None)
def test_assembled_documents_keep_their_promises(blocks: list[Block]) -> None:
    """Whatever blocks come: clean text, spans sorted, disjoint, inside, and covering all but white space."""
    try:
        document = assemble(RawDocument(blocks=blocks), LIMITS)
    except EmptyDocument:
        assert not any(c.isalnum() for block in blocks for c in block.text)
        return
    assert_clean(document)


@given(ANY_TEXT)
@settings(deadline=None)
def test_cleaning_twice_is_cleaning_once(text: str) -> None:
    """``clean`` is idempotent."""
    assert clean(clean(text)) == clean(text)


@given(st.binary(max_size=400), st.sampled_from([".txt", ".md", ".csv", ".vtt", ".json"]))
@settings(max_examples=300, deadline=None)
def test_light_parsers_survive_any_bytes(data: bytes, suffix: str) -> None:
    """Random bytes give a clean document or a DocumentError, never another exception."""
    module = {
        ".txt": plain_text, ".md": markdown_text, ".csv": delimited, ".vtt": captions, ".json": structured
    }[suffix]  # fmt: skip
    try:
        document = assemble(module.parse(data, suffix, LIMITS), LIMITS)
    except (EmptyDocument, UnsupportedFormat, LimitExceeded):
        return
    assert_clean(document)


def test_limits_of_text_and_pages() -> None:
    """More characters or pages than allowed is LimitExceeded; exactly as many is fine."""
    raw = RawDocument(blocks=[Block("text", "abcde"), Block("text", "fghij")])
    assert len(assemble(raw, Limits(max_text_chars=12)).text) == 12
    with pytest.raises(LimitExceeded):
        assemble(raw, Limits(max_text_chars=11))
    with pytest.raises(LimitExceeded):
        assemble(RawDocument(blocks=[Block("text", "x")], page_count=6), Limits(max_pages=5))


@pytest.mark.parametrize("invisible", ["", " \n\t", "\u200b\u2060\ufeff", "\x00\x01", "\u00ad\u200d"])
def test_invisible_text_is_no_text(invisible: str) -> None:
    """Zero visible characters is a failure, not a success."""
    with pytest.raises(EmptyDocument):
        assemble(RawDocument(blocks=[Block("text", invisible)]), LIMITS)


def test_terminal_escapes_and_odd_newlines() -> None:
    """Escape sequences go as a whole; every kind of line end becomes a newline."""
    assert clean("a\x1b[31mred\x1b[0m\x1b]0;title\x07b") == "aredb"
    assert clean("a\r\nb\rc\u2028d\x0ce\x85f") == "a\nb\nc\nd\ne\nf"
    assert clean("\ud83d\ude00 \ud800") == "😀 \ufffd"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Grüße aus Zürich, naïve Café", "utf-8"),
        ("Grüße aus Zürich, naïve Café", "utf-8-sig"),
        ("Grüße aus Zürich, naïve Café", "utf-16"),
        ("Grüße aus Zürich, naïve Café", "utf-16-le"),
        ("Grüße aus Zürich, naïve Café", "utf-16-be"),
        ("Grüße aus Zürich, naïve Café", "utf-32-le"),
        ("Grüße aus Zürich, naïve Café", "utf-32-be"),
        ("Grüße aus Zürich – „naïve“ Café", "cp1252"),
        ("Быстрая коричневая лиса прыгает через ленивую собаку каждый день", "cp1251"),
        ("Быстрая коричневая лиса прыгает через ленивую собаку каждый день", "koi8-r"),
        ("季度维护窗口从周日凌晨两点半开始。" * 4, "gb18030"),
        ("四半期ごとの保守は日曜日の午前二時半に始まります。" * 4, "shift_jis"),
    ],
)
def test_encodings_are_recognised(text: str, encoding: str) -> None:
    """Without a declaration the text comes out as it was written."""
    assert decode(text.encode(encoding))[0] == text


def test_a_declared_encoding_is_believed_only_when_the_bytes_agree() -> None:
    """Valid UTF-8 wins over a wrong declaration; a right one wins over a guess; codecs that are no text never run."""
    assert decode("können".encode(), declared="iso-8859-5")[0] == "können"
    assert decode("Привет".encode("iso-8859-5"), declared="iso-8859-5")[0] == "Привет"
    assert decode(b"caf\xe9", declared="zlib_codec")[0] == "café"
    assert decode(b"caf\xe9", declared="no-such-thing")[0] == "café"


def test_binary_is_not_text() -> None:
    """Control bytes in number mean a file of another kind."""
    with pytest.raises(UnsupportedFormat):
        decode(bytes(range(256)) * 20)
    with pytest.raises(UnsupportedFormat):
        decode(b"\x00" * 4096)


MARKDOWN = """---
title: "The title"
description: What it is about.
weight: 3
---
<!-- a comment
over lines -->
## First part {#first}
A paragraph
of two lines <!-- inline --> here.

- one
  more of one
- two
    - nested

| a | b |
|---|---|
| 1 | 2 |

```python
# not a heading <!-- kept -->

x = 1
```
Setext
------
Last `<!-- code -->` words.
"""


def test_markdown_elements() -> None:
    """The text is the source; headings, lists, tables and code are found; front matter gives the title."""
    document = assemble(markdown_text.parse(MARKDOWN.encode(), ".md", LIMITS), LIMITS)
    assert document.title == "The title"
    found = [(e.kind, e.level, document.text[e.start : e.end]) for e in document.elements]
    assert found == [
        ("title", 1, "# The title"),
        ("text", 0, "What it is about."),
        ("heading", 2, "## First part {#first}"),
        ("text", 0, "A paragraph\nof two lines  here."),
        ("list_item", 0, "- one\n  more of one"),
        ("list_item", 0, "- two"),
        ("list_item", 0, "    - nested"),
        ("table", 0, "| a | b |\n|---|---|\n| 1 | 2 |"),
        ("code", 0, "```python\n# not a heading <!-- kept -->\n\nx = 1\n```"),
        ("heading", 2, "Setext\n------"),
        ("text", 0, "Last `<!-- code -->` words."),
    ]
    assert "- one\n  more of one\n- two\n    - nested\n\n| a" in document.text


def test_markdown_without_front_matter_is_its_source() -> None:
    """Nothing is added or lost but blank lines in a row; the first h1 is the title."""
    source = "# Head **one**\n\ntext\n* item\n\n> quote\n\n***\n\nend"
    document = assemble(markdown_text.parse(source.encode(), ".md", LIMITS), LIMITS)
    assert document.text == source
    assert document.title == "Head one"


@pytest.mark.parametrize("rule_first", ["---\n\nno front matter\n", "---\njust words\n---\n"])
def test_a_rule_is_no_front_matter(rule_first: str) -> None:
    """A document that begins with a thematic break keeps its text."""
    assert "words" in markdown_text.split_front_matter(rule_first + "words")[1]


HOSTILE = {
    "comments": "<!--" * 200_000,
    "closed comments": "<!-- -->" * 100_000,
    "quotes": ">" * 500_000,
    "fences": "```\n" * 150_001,
    "pipes": "|" * 500_000 + "\n" + "|-" * 250_000,
    "hashes": "#" * 500_000,
    "nested lists": "\n".join(" " * i + "- x" for i in range(900)),
    "backticks": "`" * 300_000 + "<!--" + "`" * 300_000,
    "dashes": "-" * 500_000 + "\n---\n" + "title:" * 80_000,
    "blank": "\n" * 500_000,
    "spaces": (" " * 1000 + "\n") * 500,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_markdown_costs_linear_time(name: str) -> None:
    """Four times the input takes nowhere near sixteen times as long."""
    source = HOSTILE[name]

    def seconds(text: str) -> float:
        best = 9e9
        for _ in range(2):
            began = time.process_time()
            with contextlib.suppress(EmptyDocument):
                assemble(markdown_text.parse(text.encode(), ".md", LIMITS), LIMITS)
            best = min(best, time.process_time() - began)
        return best

    whole = seconds(source)
    assert whole < 0.2 or whole < 9 * seconds(source[: len(source) // 4])


def test_csv_dialects() -> None:
    """Comma, semicolon, tab, quotes with newlines, ragged rows; formulas stay text."""
    for data in (b"a,b\n1,2\n", b"a;b\n1;2\n", b"a\tb\n1\t2\n", b"a|b\n1|2\n"):
        assert delimited.parse(data, ".csv", LIMITS).blocks[0].text == "a | b\n1 | 2"
    quoted = delimited.parse(b'x,"two\nlines",=1+1\n,,\nlonger,row,of,four\n', ".csv", LIMITS)
    assert quoted.blocks[0].text == "x | two lines | =1+1\nlonger | row | of | four"


def test_json_values_and_depth() -> None:
    """Records become named values; depth is bounded however it is reached."""
    raw = structured.parse(b'[{"a": {"b": [1, true]}, "c": null}, {"a": "x"}]', ".json", LIMITS)
    assert [b.text for b in raw.blocks] == ["a.b: 1\na.b: true", "a: x"]
    with pytest.raises((LimitExceeded, RecursionError)):
        structured.parse(b"[" * 100_000 + b"]" * 100_000, ".json", LIMITS)
    with pytest.raises(LimitExceeded):
        structured.parse(b"[" * 300 + b"1" + b"]" * 300, ".json", LIMITS)
    lines = structured.parse(b'{"a": 1}\nbroken\n{"a": 2}\n', ".jsonl", LIMITS)
    assert [b.text for b in lines.blocks] == ["a: 1", "a: 2"]
    assert lines.warnings


def test_captions_lose_timings_and_keep_speakers() -> None:
    """Cue numbers, timings and tags go; who speaks stays."""
    vtt = "WEBVTT\n\nNOTE secret\n\n1\n00:01.000 --> 00:02.000\n<v Ann>Hello <b>there</b>\n\n00:03.000 --> 00:04.000\n<v Bob>Hi\n"
    raw = captions.parse(vtt.encode(), ".vtt", LIMITS)
    assert [b.text for b in raw.blocks] == ["Ann: Hello there", "Bob: Hi"]


def test_blocks_join_as_they_should() -> None:
    """A tight block follows on the next line, any other after a blank line."""
    blocks = [Block("text", "a"), Block("list_item", "- b", tight=True), Block("text", "c")]
    assert assemble(RawDocument(blocks=blocks), LIMITS).text == "a\n- b\n\nc"
    for first, second in itertools.pairwise(assemble(RawDocument(blocks=blocks), LIMITS).elements):
        assert first.end < second.start
