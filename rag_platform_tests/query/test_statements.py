"""What of a passage can be quoted."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_platform.query.sentences import line_kind
from rag_platform.query.statements import plain, statements
from rag_platform_tests.query.passages import passage

PIECES = st.sampled_from(
    ["# Head\n\n", "**Note**\n", "One sentence. ", "It goes on. ", "No. ", "A list:\n", "- item\n", "1. first\n", "| a | b |\n",
     "|---|---|\n", "| 1 | 2 |\n", "```\ncode\n```\n", "```\n", "[x](y.md)\n", "\n", "中文。", "x" * 90, "Short line\n\n"]
)  # fmt: skip
TEXTS = st.lists(PIECES | st.text(max_size=5), max_size=30).map("".join)


def quotes(text: str) -> list[str]:
    return [text[s.start : s.end] for s in statements([passage(1, text)])]


@given(TEXTS)
def test_laws(text: str) -> None:
    """A statement lies inside its passage, is trimmed, and is never a heading or a mark alone; statements begin in
    the order of the text."""
    found = statements([passage(1, text)])
    for s in found:
        assert 0 <= s.start <= s.own < s.end <= len(text)
        for start in (s.start, s.own):
            assert text[start : s.end] == text[start : s.end].strip()
        assert line_kind(text[s.own : s.end].partition("\n")[0]) != "rule"
    assert [s.own for s in found] == sorted({s.own for s in found})


def test_a_heading_is_context_and_no_answer() -> None:
    """So is a title, a bold line, and the last part of the heading path when the passage begins below it."""
    (first,) = statements([passage(1, "# Backups\n\nThey are made at night.")])
    assert (first.text, first.context) == ("They are made at night.", "Backups")
    (second,) = statements([passage(1, "Beyoncé\n\nShe is an American singer who was born in Houston.")])
    assert second.context == "Beyoncé"
    found = statements([passage(1, "**To stop it**\n\nPress Ctrl-C.\n\n**Note**\nNothing is lost by that.")])
    assert [s.context for s in found] == ["To stop it", "To stop it"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Does it need a key? No. It runs locally.", ["Does it need a key?", "No. It runs locally."]),
        ("The ledger is SQL. It is small.", ["The ledger is SQL.", "The ledger is SQL. It is small."]),
        ("It is kept:\n- for a day\n- for a week", ["It is kept:\n- for a day\n- for a week", "It is kept:\n- for a day", "It is kept:\n- for a day\n- for a week"]),
        ("- Stop it.\n- Start it.", ["Stop it.", "Start it."]),
        ("Run this:\n```\nls -l\n```\nDone now.", ["Run this:\n```\nls -l\n```", "Run this:\n```\nls -l\n```", "Done now."]),
        ("| code | why |\n|---|---|\n| 4 | guard |", ["| code | why |\n|---|---|\n| 4 | guard |"]),
        ("| 4 | guard |\n| 5 | other |", ["| 4 | guard |", "| 5 | other |"]),
        ("# Only\n\n## Headings", []),
    ],
)  # fmt: skip
def test_a_quote_can_be_read_by_itself(text: str, expected: list[str]) -> None:
    """ "No." takes what follows, "It" what precedes, a list its introduction, a row its table's header."""
    assert quotes(text) == expected


def test_a_row_far_below_its_header_is_quoted_alone() -> None:
    """A quote is not half a table; the header still says what the row is about."""
    rows = "".join(f"| setting_{n} | a sentence about what the setting {n} does |\n" for n in range(9))
    found = statements([passage(1, f"| name | meaning |\n|---|---|\n{rows}")])
    assert [s.start == s.own for s in found] == [False, False] + [True] * 7
    assert all(s.context.endswith("name meaning") for s in found)


def test_markup_does_not_take_part_in_a_comparison() -> None:
    """Links, tags, marks and backslashes go; names with underscores stay."""
    marked = r'See [the **page**](a.md#b)<a name="x"></a>, *now*, `RAG_HOME` and R3\. {{< tip text="evicted" id="e" >}}'
    assert plain(marked) == "See the page , now, RAG_HOME and R3. evicted"
    assert plain("| a | `b_c` |") == "a b_c"
    (links,) = statements([passage(1, "- [Disk full](disk-full.md)")])
    assert links.only_links


@pytest.mark.parametrize("part", ["{{<", "[", "](", "**", "<a ", '{{< text="', "| ", "- a:\n", "It. ", "`", "a:\n- "])
def test_time_is_linear_whatever_is_repeated(part: str) -> None:
    """A hostile passage of 20,000 characters costs at most seconds."""
    started = time.process_time()
    statements([passage(1, part * (20_000 // len(part)))])
    assert time.process_time() - started < 5


def test_the_projects_own_pages_give_readable_statements() -> None:
    """Almost every statement of real pages says a few words, and none begins with a pronoun alone."""
    docs = Path(__file__).parents[2] / "docs"
    found = [
        s for path in sorted(docs.rglob("*.md")) for s in statements([passage(1, path.read_text(encoding="utf-8"))])
    ]
    assert len(found) > 300
    assert sum(len(s.text.split()) < 3 for s in found) < 0.1 * len(found)
