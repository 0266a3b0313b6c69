"""The extractive answer: which sentences are quoted, and when it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rag_platform.backends.embedders import minilm_build
from rag_platform.backends.embedders.tokenizers import HuggingFaceTokenizer
from rag_platform.backends.token_encoder import TokenEncoder, TokenVectors
from rag_platform.errors import ConfigurationError, DependencyError, DependencyTimeout
from rag_platform.query import sentences
from rag_platform.query.extract import (
    QUOTED,
    REFUSAL,
    Extraction,
    Extractor,
    compose,
    extract_by_words,
)
from rag_platform.query.passage import Passage
from rag_platform.settings import Settings
from rag_platform_tests.query.passages import passage

DOCS = Path(__file__).parents[2] / "docs"

OPERATIONS = passage(
    1,
    "## Dead letters\n\nFailed documents are tried again automatically: first after an hour, then after two, four and "
    "eight hours. After five attempts a dead letter waits for a person.\n\n## Freshness\n\nThe check warns when a source "
    "was not listed completely for longer than 24 hours. It looks at listings and not at changes.",
    "Operations",
    before="# Operations\n\n",
)
COSTS = passage(
    2,
    "The local embedder costs no money. OpenAI's list prices are built in: text-embedding-3-small $0.02 and "
    "text-embedding-3-large $0.13 per million tokens.\n\n| exit code | meaning |\n|---|---|\n| 3 | too many dead letters |\n"
    "| 4 | stopped by the mass-change guard |",
    "Costs",
)
FAQ = passage(
    3,
    "## Does it need a GPU, a server or a key?\n\nNo. The default settings use a local model on the CPU.\n\n"
    "## Does it write to my documents?\n\nNo. Sources are only read.",
    "Questions",
)
PASSAGES = [OPERATIONS, COSTS, FAQ]


def ask(settings: Settings, question: str, passages: Sequence[Passage] = PASSAGES, **more: int) -> Extraction:
    async def main() -> Extraction:
        encoder = TokenEncoder(settings)
        try:
            return await Extractor(encoder).extract(question, passages, timeout_s=60, **more)
        finally:
            await encoder.aclose()

    return asyncio.run(main())


ANSWERED = [
    ("When are failed documents tried again for the first time?", "first after an hour"),
    ("What happens after five attempts?", "waits for a person"),
    ("What is the price of text-embedding-3-large?", "$0.13"),
    ("Does it need a GPU?", "No. The default settings use a local model on the CPU."),
    ("Which exit code means that the mass-change guard stopped the run?", "| 4 | stopped by the mass-change guard |"),
]
PARAPHRASED = ("Does it change my documents?", "No. Sources are only read.")
UNANSWERED = [
    "What is the capital of Australia?",
    "How do I connect a SharePoint site?",
    "Who won the Super Bowl in 2016?",
    "How tall is Mount Everest?",
    "What is the recipe for sourdough bread?",
]


@pytest.mark.parametrize(("question", "expected"), ANSWERED)
def test_the_answering_sentence_is_quoted(settings: Settings, question: str, expected: str) -> None:
    """The quotes hold the answer, by token vectors and by words alone."""
    for extraction in (ask(settings, question), extract_by_words(question, PASSAGES)):
        assert any(expected in quote.text for quote in extraction.quotes), extraction
    assert ask(settings, question).supported


def test_another_wording_is_understood(settings: Settings) -> None:
    """Token vectors find what says the same in other words."""
    question, expected = PARAPHRASED
    assert any(expected in quote.text for quote in ask(settings, question).quotes)


@pytest.mark.parametrize("question", UNANSWERED)
def test_a_question_that_nothing_answers_is_refused(settings: Settings, question: str) -> None:
    """Passages about something else support no answer."""
    assert not ask(settings, question).supported
    assert not extract_by_words(question, PASSAGES).supported


def test_quotes_stand_where_they_say_and_citations_repeat_them(settings: Settings) -> None:
    """Offsets are the document's own; each quote has its number in the answer's text."""
    extraction = ask(settings, "What happens after five attempts?")
    text, citations = compose(extraction, PASSAGES)
    assert text.startswith(QUOTED)
    assert [c.number for c in citations] == list(range(1, len(citations) + 1))
    for quote, citation in zip(extraction.quotes, citations, strict=True):
        source = next(p for p in PASSAGES if p.number == quote.passage_number)
        assert quote.text == source.text[quote.start - source.start : quote.end - source.start]
        assert (citation.quote, citation.start, citation.end) == (quote.text, quote.start, quote.end)
        assert citation.chunk_id == source.hit.chunk_id
        assert f"[{citation.number}]" in text


def test_neighbours_become_one_quote(settings: Settings) -> None:
    """Two sentences in a row are quoted as they stand, once."""
    story = passage(
        1, "The ledger is a SQL database. The ledger decides what is done. Cats sleep. Dogs bark. Birds sing."
    )
    extraction = ask(settings, "What is the ledger and what does the ledger decide?", [story])
    assert [q.text for q in extraction.quotes] == ["The ledger is a SQL database. The ledger decides what is done."]
    assert len(ask(settings, "What is the ledger?", [story], sentences=1).quotes) == 1


def test_the_answer_shows_no_foreign_link_and_the_citation_is_exact() -> None:
    """What could load or lead somewhere is not shown; the quote itself stays to the character."""
    text = r"The limit is 5\. See [the page](https://evil.example/?q=1) ![pixel](https://evil.example/p.png) for the limit\."
    extraction = extract_by_words("What is the limit?", [passage(1, text)])
    answer, citations = compose(extraction, [passage(1, text)], opening="Extracts:")
    assert answer.startswith("Extracts:\n\n“The limit is 5.")
    assert "![" not in answer and "\\" not in answer
    assert all(c.quote in text for c in citations)


class BrokenEncoder(TokenEncoder):
    """Fails in a given way."""

    def __init__(self, settings: Settings, error: Exception) -> None:
        super().__init__(settings)
        self._error = error

    async def encode(
        self, texts: Sequence[str], *, max_tokens: int = 0, timeout_s: float | None = None
    ) -> list[TokenVectors]:
        raise self._error


@pytest.mark.parametrize(
    "error",
    [DependencyTimeout("encoder", "late"), DependencyError("encoder", "down"), ConfigurationError("no model")],
    ids=["late", "down", "absent"],
)
def test_without_an_encoder_words_choose(settings: Settings, error: Exception) -> None:
    """A broken encoder costs precision, never the answer."""
    question = "What is the price of text-embedding-3-large?"
    extraction = asyncio.run(Extractor(BrokenEncoder(settings, error)).extract(question, PASSAGES, timeout_s=1))
    assert extraction == extract_by_words(question, PASSAGES)
    assert extraction.by_words and extraction.supported


def test_a_late_encoder_is_not_waited_for(settings: Settings) -> None:
    """Without any time left the words answer."""

    async def main() -> Extraction:
        encoder = TokenEncoder(settings)
        try:
            return await Extractor(encoder).extract("Does it need a GPU?", PASSAGES, timeout_s=0.0)
        finally:
            await encoder.aclose()

    extraction = asyncio.run(main())
    assert extraction.by_words
    assert "local model on the CPU" in extraction.quotes[0].text


def test_other_scripts(settings: Settings) -> None:
    """The model knows no Chinese; words still find the sentence, and the answer."""
    chinese = passage(1, "容器组是最小的可部署单元。节点是集群中的一台机器。默认的宽限期是三十秒。")
    for extraction in (
        ask(settings, "默认的宽限期是多少？", [chinese]),
        extract_by_words("默认的宽限期是多少？", [chinese]),
    ):
        assert extraction.quotes[0].text == "默认的宽限期是三十秒。"


def test_nothing_to_quote(settings: Settings) -> None:
    """No passage, or a blank one, is a refusal; headings alone are quoted rather than nothing."""
    for passages in ([], [passage(1, " \n")]):
        for extraction in (ask(settings, "Why?", passages), extract_by_words("Why?", passages)):
            assert (extraction.quotes, extraction.supported) == ([], False)
            assert compose(extraction, passages) == (REFUSAL, [])
    assert extract_by_words("What is freshness?", [passage(1, "# Freshness")]).quotes[0].text == "# Freshness"


QUESTIONS = st.text(max_size=40) | st.sampled_from(["What is a dead letter?", "?", "How many?", "0", "\ud800 x"])
BODIES = st.lists(
    st.sampled_from(["# Head\n\n", "A dead letter waits. ", "It is late. ", "- one item\n", "| a | b |\n", "\n", "42 hours. "])
    | st.text(max_size=6),
    max_size=15,
).map("".join)  # fmt: skip


@hypothesis_settings(deadline=None)
@given(QUESTIONS, st.lists(BODIES, max_size=4), st.integers(1, 4))
def test_laws(question: str, bodies: list[str], count: int) -> None:
    """At most so many quotes, none overlapping another, each exact; something for something; support in 0 to 1."""
    passages = [passage(n, body, before="x" * n) for n, body in enumerate(bodies, 1)]
    extraction = extract_by_words(question, passages, sentences=count)
    assert bool(extraction.quotes) == any(p.text.strip() for p in passages)
    assert len(extraction.quotes) <= count
    assert 0 <= extraction.support <= 1
    by_number = {p.number: p for p in passages}
    covered: set[tuple[int, int]] = set()
    for quote in extraction.quotes:
        source = by_number[quote.passage_number]
        assert quote.text == source.text[quote.start - source.start : quote.end - source.start] != ""
        assert 0 <= quote.score <= 1
        characters = {(quote.passage_number, n) for n in range(quote.start, quote.end)}
        assert not characters & covered
        covered |= characters
    compose(extraction, passages)


def test_the_projects_own_pages(settings: Settings) -> None:
    """Among real chunks the right sentence is found."""
    tokenizer = HuggingFaceTokenizer(minilm_build.TOKENIZER)
    passages = []
    for n, name in enumerate(("operations", "chunking", "faq", "costs"), 1):
        text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
        end = max(b for _, b in sentences.split(text) if len(tokenizer.offsets(text[:b])) <= 400)
        passages.append(passage(n, text[:end], name.title()))
    extraction = ask(settings, "How often does the source_changes sensor look at the sources?", passages)
    assert extraction.supported
    assert "every 30 seconds" in extraction.quotes[0].text
