"""Confluence and Notion through the real pipeline: what changes there reaches retrieval and the cache at its own cost."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rag_platform.errors import DependencyError
from rag_platform.ingestion.workbench import Workbench
from rag_platform.ledger import open_ledger
from rag_platform.query.answer import Answer
from rag_platform.query.question import Question
from rag_platform.query.service import QueryService
from rag_platform.records import Principal, SourceSpec
from rag_platform.settings import Settings
from rag_platform_tests import harness
from rag_platform_tests.backends.api_double import Asked, Reply
from rag_platform_tests.backends.confluence_server import EMAIL, TOKEN, ConfluenceDouble
from rag_platform_tests.backends.notion_server import TOKEN as NOTION_TOKEN
from rag_platform_tests.backends.notion_server import NotionDouble, block
from serve.documents import DocumentTexts

STAFF = Principal("default", frozenset({"staff"}))
HR = Principal("default", frozenset({"people"}))
QUESTION = "When does the salary band of an engineer start?"
_ids = itertools.count()
UNCHANGED = {"parsed": 0, "chunked": 0, "embedded": 0, "dead_lettered": 0}


@pytest.fixture
def wiki() -> Iterator[ConfluenceDouble]:
    double = ConfluenceDouble()
    yield double
    double.close()


@pytest.fixture
def notion() -> Iterator[NotionDouble]:
    double = NotionDouble()
    yield double
    double.close()


def wiki_settings(home: Path) -> Settings:
    fast = {"RAG_CONFLUENCE_REQUESTS_PER_S": "2000", "RAG_CONFLUENCE_TIMEOUT_S": "10"}
    return harness.settings(home, WIKI_TOKEN=TOKEN, RAG_ALLOW_PRIVATE_ADDRESSES="true", **fast)


def wiki_spec(double: ConfluenceDouble, **changes: Any) -> SourceSpec:
    options = {"deployment": "cloud", "email": EMAIL, "token_env": "WIKI_TOKEN", "groups": {"hr": "people"}}
    return SourceSpec("wiki", f"{double.cloud_url}?space=ENG", options=options, **changes)


def fill(double: ConfluenceDouble) -> None:
    double.add("11", "Handbook", "<p>The handbook of the company, with all that is allowed.</p>")
    double.add("12", "Salaries", "<p>The salary band of an engineer starts at 91,000 euros.</p>", parent="11")
    double.add("13", "Garden", "<p>Bees live in two hives near the north wall.</p>", parent="11")


def some(counters: dict[str, float], *names: str) -> dict[str, float]:
    return {name: counters[name] for name in names}


async def ask(service: QueryService, principal: Principal) -> Answer:
    return await service.answer(Question(QUESTION, principal, f"request-{next(_ids)}"))


def test_a_restriction_reaches_retrieval_and_cache_without_embedding(tmp_path: Path, wiki: ConfluenceDouble) -> None:
    """P11: after the next run the excluded group finds it neither in the index nor in the cache; those whom
    the restriction names do. Nothing is fetched, parsed or embedded for it; below a page it is inherited."""
    settings = wiki_settings(tmp_path)
    fill(wiki)

    async def scenario(service: QueryService, bench: Workbench, run: Any) -> None:
        for _ in range(10):  # a step may miss its budget on a busy machine; such an answer is not kept
            before = await ask(service, STAFF)
            if before.cache != "miss":
                break
        assert "91,000" in before.answer and before.cache == "exact"
        wiki.pages["12"].groups.append("hr")
        wiki.forget()
        counters = await asyncio.to_thread(run, "r2")
        assert some(counters, *UNCHANGED, "changed", "unchanged") == {**UNCHANGED, "changed": 1, "unchanged": 2}
        assert not [a for a in wiki.asked if "body-format" in a.query]
        after = await ask(service, STAFF)
        assert "91,000" not in after.answer and "pages/12.html" not in [c.uri for c in after.citations]
        known = await ask(service, HR)
        assert "91,000" in known.answer
        span = await service.citation(known.citations[0].chunk_id, HR)
        assert span is not None and span.url == f"{wiki.origin}/wiki/pages/viewpage.action?pageId=12"
        assert await service.citation(known.citations[0].chunk_id, STAFF) is None

    with Workbench(settings) as bench:

        def run(run_id: str) -> dict[str, float]:
            return harness.ingest(bench, [wiki_spec(wiki)], run_id)

        assert some(run("r1"), "added", "parsed") == {"added": 3, "parsed": 3}

        async def served() -> None:
            ledger = open_ledger(settings)
            service = QueryService(settings, ledger=ledger, document_text=DocumentTexts(settings, ledger))
            try:
                await scenario(service, bench, run)
            finally:
                await service.aclose()

        asyncio.run(served())
        wiki.pages["11"].users.append("u-bob")  # nobody of hr is Bob: the page below closes for all
        assert some(run("r3"), *UNCHANGED, "changed") == {**UNCHANGED, "changed": 3}
        rows = {r["uri"]: list(r["acl"]) for r in harness.index_rows(bench, "uri", "acl")}
        assert rows == {
            "pages/11.html": ["confluence:user:u-bob"],
            "pages/12.html": [],
            "pages/13.html": ["confluence:user:u-bob"],
        }
        harness.check_invariants(bench)


def test_an_expired_token_deletes_nothing_and_leaves_no_dead_letter(tmp_path: Path, wiki: ConfluenceDouble) -> None:
    """P6: before the listing and between listing and fetch; the next run with a good one goes on."""
    fill(wiki)
    with Workbench(wiki_settings(tmp_path)) as bench:
        harness.ingest(bench, [wiki_spec(wiki)], "r1")
        before = harness.identified(bench)
        wiki.token = "another"
        with pytest.raises(DependencyError, match="WIKI_TOKEN"):
            harness.ingest(bench, [wiki_spec(wiki)], "r2")
        wiki.token = TOKEN
        wiki.pages["13"].version = 2
        wiki.pages["13"].body = "<p>The bees have moved to the south wall.</p>"

        def expire(asked: Asked) -> None:
            if "body-format" in asked.query:
                wiki.token = "another"

        wiki.fault = expire
        with pytest.raises(DependencyError, match="WIKI_TOKEN"):
            harness.ingest(bench, [wiki_spec(wiki)], "r3")
        assert harness.identified(bench) == before
        assert bench.ledger.dead_letters.counts().get("open", 0) == 0
        wiki.forget()
        wiki.token = TOKEN
        assert some(harness.ingest(bench, [wiki_spec(wiki)], "r4"), "changed", "parsed") == {"changed": 1, "parsed": 1}
        harness.check_invariants(bench)


def test_moves_renames_and_deletions_of_pages(tmp_path: Path, wiki: ConfluenceDouble) -> None:
    """A move costs nothing, a new title its document, a deleted page its rows; a denied one a dead letter."""
    fill(wiki)
    with Workbench(wiki_settings(tmp_path)) as bench:
        harness.ingest(bench, [wiki_spec(wiki)], "r1")
        wiki.pages["13"].parent = "12"
        moved = harness.ingest(bench, [wiki_spec(wiki)], "r2")
        assert some(moved, "unchanged", "added", "deleted", "index_writes") == {
            "unchanged": 3, "added": 0, "deleted": 0, "index_writes": 0,
        }  # fmt: skip
        wiki.pages["13"].title, wiki.pages["13"].version = "Roof garden", 2
        wiki.pages["12"].status = "trashed"
        renamed = harness.ingest(bench, [wiki_spec(wiki)], "r3")
        assert some(renamed, "changed", "added", "deleted") == {"changed": 1, "added": 0, "deleted": 1}
        titles = {r["uri"]: r["title"] for r in harness.index_rows(bench, "uri", "title")}
        assert titles == {"pages/11.html": "Handbook", "pages/13.html": "Roof garden"}
        wiki.pages["11"].version = 2
        denied = "/api/v2/pages/11"
        wiki.fault = lambda a: Reply(403, {}) if a.path.endswith(denied) else None
        assert harness.ingest(bench, [wiki_spec(wiki)], "r4")["dead_lettered"] == 1
        assert harness.uris(bench) == {"pages/11.html", "pages/13.html"}
        harness.check_invariants(bench)


def test_a_notion_workspace_is_ingested_and_followed(tmp_path: Path, notion: NotionDouble) -> None:
    """Unchanged costs nothing; an edit costs its page; what is no longer shared goes."""
    top = notion.add_page("Handbook", [block("paragraph", "The handbook of the company.")])
    sub = notion.add_page(
        "Garden", [block("paragraph", "Bees near the north wall.")], parent={"type": "page_id", "page_id": top}
    )
    settings = harness.settings(
        tmp_path,
        RAG_NOTION_TOKEN=NOTION_TOKEN,
        RAG_NOTION_URL=notion.origin,
        RAG_NOTION_REQUESTS_PER_S="2000",
        RAG_ALLOW_PRIVATE_ADDRESSES="true",
    )
    spec = SourceSpec("notes", "notion://", tags=("team",))
    with Workbench(settings) as bench:
        assert some(harness.ingest(bench, [spec], "r1"), "added", "parsed") == {"added": 2, "parsed": 2}
        again = harness.ingest(bench, [spec], "r2")
        assert some(again, *UNCHANGED, "unchanged", "index_writes") == {**UNCHANGED, "unchanged": 2, "index_writes": 0}
        notion.edit(sub, [block("paragraph", "Bees near the south wall.")], "2024-03-01T10:05")
        assert some(harness.ingest(bench, [spec], "r3"), "changed", "parsed") == {"changed": 1, "parsed": 1}
        texts = " ".join(r["text"] for r in harness.index_rows(bench, "text"))
        assert "south wall" in texts and "north wall" not in texts
        notion.pages[sub]["in_trash"] = True
        assert harness.ingest(bench, [spec], "r4")["deleted"] == 1
        harness.check_invariants(bench)
