"""Where sentences end."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_platform.query.sentences import MAX_WEIGHT, item_marker, line_kind, split

DOCS = Path(__file__).parents[2] / "docs"

PIECES = st.sampled_from(
    ["Dr. ", "U.S. ", "e.g. ", "3.14 ", "v1.2.3. ", "The end. ", "Really?! ", "\n", "\n\n", "- ", "1. ", "# ", "```\n", "~~~ ",
     "| a | b |", "|---|", "\t", "。", "你好", "」", "“", ".”", "[12] ", "word ", "x" * 300, "中" * 300, "\u00a0", "\x1c", "\x85", "…"]
)  # fmt: skip
TEXTS = st.lists(PIECES | st.text(max_size=8), max_size=40).map("".join)


def cut(text: str) -> list[str]:
    return [text[start:end] for start, end in split(text)]


@given(TEXTS)
def test_spans_are_sorted_disjoint_trimmed_and_leave_only_white_space_outside(text: str) -> None:
    """Whatever the text: nothing is lost, nothing is said twice."""
    position = 0
    for start, end in split(text):
        assert position <= start < end <= len(text)
        assert not text[position:start].strip()
        assert text[start:end] == text[start:end].strip()
        assert end - start <= MAX_WEIGHT
        position = end
    assert not text[position:].strip()


@given(st.lists(st.sampled_from(["The first one.", "Is it so?", "It is 3.5 m long!", "Prof. Li came."]), min_size=1))
def test_plain_sentences_are_found_one_by_one(sentences: list[str]) -> None:
    """Sentences joined by blanks come out as they went in."""
    assert cut(" ".join(sentences)) == sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Dr. J. R. Smith of Acme Inc. left. He paid $3.50.", ["Dr. J. R. Smith of Acme Inc. left.", "He paid $3.50."]),
        ("He lived in the U.S. In 1990 he left.", ["He lived in the U.S.", "In 1990 he left."]),
        ("The U.S. Army came at 5 p.m. on Jan. 3. It won.", ["The U.S. Army came at 5 p.m. on Jan. 3.", "It won."]),
        ("Use v1.2.3. See https://a.b/c.d?e=f. Done", ["Use v1.2.3.", "See https://a.b/c.d?e=f.", "Done"]),
        ("See Fig. 3, e.g. this. No. 5 is alive. No. That.", ["See Fig. 3, e.g. this.", "No. 5 is alive.", "No.", "That."]),
        ("Yahoo! is a firm. “Is it?” He said (etc.). Yes…", ["Yahoo! is a firm.", "“Is it?”", "He said (etc.).", "Yes…"]),
        ("It grew.[12][3] Then it fell.", ["It grew.[12][3]", "Then it fell."]),
        ("**Note.** Be careful. `x.` Run it.", ["**Note.**", "Be careful.", "`x.`", "Run it."]),
        ("你好。我是学生！他说：“好的。”然后走了。", ["你好。", "我是学生！", "他说：“好的。”", "然后走了。"]),
        ("日本語の文です。そうですか？", ["日本語の文です。", "そうですか？"]),
        ("यह हिन्दी है। दूसरा वाक्य।", ["यह हिन्दी है।", "दूसरा वाक्य।"]),
        ("# Title\nText here. More", ["# Title", "Text here.", "More"]),
        ("- one. Two\n- three\n  goes on\n1. Do. It", ["- one.", "Two", "- three\n  goes on", "1. Do.", "It"]),
        ("| a. B | c |\n|---|---|\n| 1 | 2 |", ["| a. B | c |", "|---|---|", "| 1 | 2 |"]),
        ("name | size\nfoo. Bar | 2", ["name | size", "foo. Bar | 2"]),
        ("Run:\n```bash\nls. Foo\ncd\n```\nDone.", ["Run:", "```bash\nls. Foo\ncd\n```", "Done."]),
        ("cd x\n```\nThe rest. Is prose.", ["cd x", "```", "The rest.", "Is prose."]),
        ("Beyoncé\nBeyoncé is an American singer of the first order, born in Houston.", ["Beyoncé", "Beyoncé is an American singer of the first order, born in Houston."]),
        ("A line that was wrapped where the editor\nsaw fit to wrap it, goes on. New one.", ["A line that was wrapped where the editor\nsaw fit to wrap it, goes on.", "New one."]),
        (" \n\t ", []),
        ("", []),
    ],
)  # fmt: skip
def test_known_cases(text: str, sentences: list[str]) -> None:
    """Abbreviations, initials, numbers, quotes, scripts without spaces, and lines that are not prose."""
    assert cut(text) == sentences


def test_a_long_sentence_is_cut_at_a_clause_else_at_a_blank_else_anywhere() -> None:
    """Every piece is short enough to be encoded and quoted."""
    clauses = cut("and this clause goes on, " * 60)
    assert len(clauses) > 1
    assert all(piece.endswith(",") for piece in clauses)
    assert all(re.fullmatch(r"(?:word ?)+", piece) for piece in cut("word " * 400))
    assert [len(piece) for piece in cut("中" * 600)] == [MAX_WEIGHT // 2] * 2 + [100]


def test_the_projects_own_pages_are_cut_into_readable_pieces() -> None:
    """On real Markdown almost no piece begins in the middle of a sentence."""
    pieces = [piece for path in sorted(DOCS.rglob("*.md")) for piece in cut(path.read_text(encoding="utf-8"))]
    prose = [p for p in pieces if line_kind(p) == "text" and len(p) > 20]
    assert len(prose) > 100
    assert sum(p[0].islower() for p in prose) < 0.05 * len(prose)


def test_the_kind_of_a_line_is_read_from_its_marks() -> None:
    """Each kind has a line of its own."""
    lines = ["## A", "- a", "12) a", "| a |", "a | b", "---", "```py", "plain - text", " "]
    kinds = ["heading", "item", "item", "row", "row", "rule", "fence", "text", "blank"]
    assert [line_kind(line) for line in lines] == kinds
    assert item_marker("  2. Foo") == 5
    assert item_marker("Foo") == 0


@pytest.mark.parametrize(
    "part", [" ", "\t", ".", "a ", "- ", "|", "```\n", "a\t", "a |", "1.", "\n", "*", "A. ", "¿", "。"]
)
def test_time_is_linear_whatever_is_repeated(part: str) -> None:
    """A hostile page of 200,000 characters costs at most seconds."""
    started = time.process_time()
    split(part * (200_000 // len(part)) + "x")
    assert time.process_time() - started < 10
