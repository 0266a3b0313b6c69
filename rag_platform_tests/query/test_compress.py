"""Context compression: what is kept, what is cut, what is left out."""

from __future__ import annotations

import random
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from rag_platform.backends.embedders import minilm_build
from rag_platform.backends.embedders.tokenizers import HuggingFaceTokenizer
from rag_platform.query import sentences
from rag_platform.query.compress import compress
from rag_platform.records import Hit

DOCS = Path(__file__).parents[2] / "docs"
TOKENIZER = HuggingFaceTokenizer(minilm_build.TOKENIZER)
PROSE = (
    "The sensor looks at every source every thirty seconds. A failed run is tried again after a minute. "
    "Nothing is lost when a process is killed. Deleted documents leave the index with the next run."
)
TEXTS = st.lists(
    st.sampled_from(["One sentence here. ", "# Head\n\n", "- item\n", "中文句子。", "\n", " ", "x" * 80, "Limit is 5. ", "Limit is 7. "])
    | st.text(max_size=6),
    max_size=12,
).map("".join)  # fmt: skip


def hit(text: str, *, document: str = "d", start: int = 0, score: float = 1.0) -> Hit:
    return Hit(
        chunk_id=f"{document}:{start}",
        document_id=document,
        source="s",
        uri=document,
        title="T",
        version_id="v",
        content_hash="",
        snapshot_id="",
        run_id="",
        ordinal=0,
        start=start,
        end=start + len(text),
        page=None,
        heading_path="",
        mime_type="text/plain",
        language="",
        modified_at=None,
        tags=(),
        tenant="default",
        acl=(),
        text=text,
        score=score,
    )


@given(st.lists(TEXTS, max_size=6), st.integers(1, 5), st.integers(1, 60))
def test_laws(texts: list[str], k: int, budget: int) -> None:
    """At most k and at most the budget; numbered from 1 in rank order; each text stands where it says; something
    is returned for something."""
    hits = [hit(text, document=str(n), start=7 * n) for n, text in enumerate(texts)]
    passages = compress(hits, TOKENIZER, k=k, token_budget=budget)
    assert bool(passages) == bool(hits)
    assert [p.number for p in passages] == list(range(1, len(passages) + 1))
    assert len(passages) <= k
    ranks = [hits.index(p.hit) for p in passages]
    assert ranks == sorted(set(ranks))
    for p in passages:
        assert p.text == p.hit.text[p.start - p.hit.start : p.end - p.hit.start]
        assert len(p.text) == p.end - p.start
    if any(p.text.strip() for p in passages):
        assert sum(TOKENIZER.count([p.text for p in passages])) <= budget


def test_the_last_passage_ends_where_a_sentence_does() -> None:
    """The budget cuts between sentences, in the middle of one only when nothing else would be left."""
    hits = [hit(PROSE), hit("Another text about backups of the ledger. It is short.", document="e")]
    whole = TOKENIZER.count([PROSE])[0]
    for budget in range(1, whole + 12):
        passages = compress(hits, TOKENIZER, k=5, token_budget=budget)
        last = passages[-1]
        if budget > 12:
            assert last.text.endswith(".")
        assert last.text
    assert len(compress(hits, TOKENIZER, k=5, token_budget=whole + 30)) == 2


def test_a_heading_does_not_end_a_passage() -> None:
    """A heading whose text was cut off says nothing."""
    text = "The first rule holds always and everywhere.\n\n## Second\n\nThe second rule holds on Mondays only."
    budget = TOKENIZER.count(["The first rule holds always and everywhere.\n\n## Second"])[0] + 1
    (passage,) = compress([hit(text)], TOKENIZER, k=3, token_budget=budget)
    assert passage.text == "The first rule holds always and everywhere."


def test_a_near_duplicate_is_left_out_and_a_different_number_is_not_one() -> None:
    """Copies of a page cost no budget; a page of another version with another limit is another page."""
    copy = hit(f"Note. {PROSE}", document="copy")
    other = hit(PROSE.replace("thirty", "60"), document="other")
    mixed = hit("Backups are made at night. They are kept for a month.", document="mixed")
    long = hit(PROSE + " " + PROSE.replace("thirty", "twenty"), document="long")
    passages = compress([long, hit(PROSE), copy, other, mixed], TOKENIZER, k=9, token_budget=1000)
    assert [p.hit.document_id for p in passages] == ["long", "other", "mixed"]


def test_chinese_copies_are_found() -> None:
    """A script without spaces has words, too."""
    text = "容器组是可以在系统中创建和管理的最小的可部署的计算单元。它由一个或多个容器组成，这些容器共享存储和网络。"
    passages = compress([hit(text, document="a"), hit(text + "好。", document="b")], TOKENIZER, k=9, token_budget=999)
    assert [p.hit.document_id for p in passages] == ["a"]


def test_overlapping_chunks_are_not_said_twice() -> None:
    """Of the same version of a document every character is used at most once, whichever chunk ranks first."""
    first, second = hit(PROSE[:110]), hit(PROSE[56:], start=56)
    for order in ([first, second], [second, first]):
        passages = compress(order, TOKENIZER, k=9, token_budget=1000)
        covered = [n for p in passages for n in range(p.start, p.end)]
        assert len(covered) == len(set(covered))
        assert {n for n in range(len(PROSE)) if not PROSE[n].isspace()} <= set(covered)


def test_real_pages_within_a_budget() -> None:
    """Chunks of the project's own pages: the budget is nearly used up, and every end is a sentence's."""
    rng = random.Random(3)
    pages = [path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md"))]
    hits = []
    for n, page in enumerate(rng.sample(pages, 8)):
        spans = sentences.split(page)
        first = rng.randrange(max(1, len(spans) - 8))
        start, end = spans[first][0], spans[min(first + 7, len(spans) - 1)][1]
        hits.append(hit(page[start:end], document=str(n), start=start))
    passages = compress(hits, TOKENIZER, k=8, token_budget=500)
    used = sum(TOKENIZER.count([p.text for p in passages]))
    assert 350 < used <= 500
    ends = {b + passages[-1].hit.start for _, b in sentences.split(passages[-1].hit.text)}
    assert passages[-1].end in ends
