"""Buckets through the real pipeline: permissions that change there reach retrieval and cache at their own cost."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rag_platform.errors import DependencyError
from rag_platform.ingestion import source_catalog
from rag_platform.ingestion.changes import difference
from rag_platform.ingestion.workbench import Workbench
from rag_platform.ledger import open_ledger
from rag_platform.query.answer import Answer
from rag_platform.query.question import Question
from rag_platform.query.service import QueryService
from rag_platform.records import Principal, SourceSpec
from rag_platform.settings import Settings
from rag_platform_tests import harness
from rag_platform_tests.backends.api_double import Asked, Reply
from rag_platform_tests.backends.faulty_front import before
from rag_platform_tests.backends.s3_server import client, s3_bucket, s3_endpoint  # noqa: F401 - fixtures

STAFF = Principal("default", frozenset({"staff"}))
HR = Principal("default", frozenset({"people"}))
ABROAD = Principal("globex", frozenset({"staff"}))
QUESTION = "When does the salary band of an engineer start?"
SALARIES = b"# Salaries\n\nThe salary band of an engineer starts at 91,000 euros.\n"
UNTOUCHED = {"parsed": 0, "chunked": 0, "embedded": 0, "dead_lettered": 0}
_ids = itertools.count()


class Bucket:
    """A source's objects, below ``docs/``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.s3 = client()

    def put(self, uri: str, data: bytes, **tags: str) -> None:
        self.s3.put_object(Bucket=self.name, Key=f"docs/{uri}", Body=data)
        if tags:
            self.tag(uri, **tags)

    def tag(self, uri: str, **tags: str) -> None:
        pairs = [{"Key": f"rag-{k}", "Value": v} for k, v in tags.items()]
        self.s3.put_object_tagging(Bucket=self.name, Key=f"docs/{uri}", Tagging={"TagSet": pairs})

    def spec(self, **changes: Any) -> SourceSpec:
        options = {"acl_from": "s3-tags", "tenants": ["globex"]}
        return SourceSpec(**{"name": "docs", "uri": f"s3://{self.name}/docs", "acl": (), "options": options, **changes})


@pytest.fixture
def bucket(s3_bucket: str) -> Bucket:  # noqa: F811
    filled = Bucket(s3_bucket)
    filled.put("salaries.md", SALARIES, acl="staff people")
    filled.put("garden.md", b"# Garden\n\nBees live in two hives near the north wall.\n", acl="staff")
    filled.put("untagged.md", b"# Draft\n\nNobody has said who may read this.\n")
    return filled


def some(counters: dict[str, float], *names: str) -> dict[str, float]:
    return {name: counters[name] for name in names}


def access(bench: Workbench) -> dict[str, tuple[str, list[str]]]:
    return {r["uri"]: (r["tenant"], sorted(r["acl"])) for r in harness.index_rows(bench, "uri", "tenant", "acl")}


async def ask(service: QueryService, principal: Principal) -> Answer:
    return await service.answer(Question(QUESTION, principal, f"request-{next(_ids)}"))


async def cached(service: QueryService, principal: Principal) -> Answer:
    """Ask until the cache answers: a step may miss its budget on a busy machine, and such an answer is not kept."""
    for _ in range(10):
        if (answer := await ask(service, principal)).cache != "miss":
            return answer
    raise AssertionError("the cache never answered")


def served(settings: Settings, scenario: Callable[[QueryService], Any]) -> None:
    async def run() -> None:
        service = QueryService(settings, ledger=open_ledger(settings))
        try:
            await scenario(service)
        finally:
            await service.aclose()

    asyncio.run(run())


def test_a_changed_tag_reaches_retrieval_and_cache_without_embedding(tmp_path: Path, bucket: Bucket) -> None:
    """P11: the ETag stands still, yet the next run finds the change, writes one version, reads nothing; the
    excluded group finds the document neither in the index nor in the cache. Then another tenant's, then the
    source's own again."""
    settings = harness.settings(tmp_path)
    with Workbench(settings) as bench:

        def run(run_id: str) -> dict[str, float]:
            return harness.ingest(bench, [bucket.spec()], run_id)

        assert some(run("r1"), "added", "parsed") == {"added": 3, "parsed": 3}
        assert access(bench)["untagged.md"] == ("default", [])
        before_ = {d.uri: (d.change_token, d.content_hash, d.metadata_hash) for d in _documents(bench)}

        async def scenario(service: QueryService) -> None:
            assert "91,000" in (await cached(service, STAFF)).answer
            bucket.tag("salaries.md", acl="people")
            moved = difference(bench, bucket.spec())
            assert [(i.uri, d.uri) for i, d in moved.changed] == [("salaries.md", "salaries.md")]
            counters = await asyncio.to_thread(run, "r2")
            assert some(counters, *UNTOUCHED, "changed", "unchanged", "index_writes") == {
                **UNTOUCHED, "changed": 1, "unchanged": 2, "index_writes": 1,
            }  # fmt: skip
            after = await ask(service, STAFF)
            assert "91,000" not in after.answer
            assert "salaries.md" not in [c.uri for c in after.citations]
            assert "91,000" in (await ask(service, HR)).answer
            bucket.tag("salaries.md", acl="staff", tenant="globex")
            assert (await asyncio.to_thread(run, "r3"))["index_writes"] == 1
            assert "91,000" not in (await ask(service, HR)).answer
            assert "91,000" in (await ask(service, ABROAD)).answer

        served(settings, scenario)
        after = {d.uri: (d.change_token, d.content_hash, d.metadata_hash) for d in _documents(bench)}
        assert {u: (a[:2] == before_[u][:2], a[2] == before_[u][2]) for u, a in after.items()} == {
            "salaries.md": (True, False), "garden.md": (True, True), "untagged.md": (True, True),
        }  # fmt: skip
        assert some(run("r4"), *UNTOUCHED, "unchanged", "index_writes") == {
            **UNTOUCHED,
            "unchanged": 3,
            "index_writes": 0,
        }
        harness.check_invariants(bench)


def test_a_changed_acl_in_sources_yaml_reaches_retrieval_and_cache(tmp_path: Path, bucket: Bucket) -> None:
    """P11: the same for the permissions of a whole source; its own tags keep theirs."""
    settings = harness.settings(tmp_path)
    file = tmp_path / "sources.yaml"

    def specs(acl: str) -> list[SourceSpec]:
        file.write_text(
            f"sources: [{{name: docs, uri: 's3://{bucket.name}/docs', acl: {acl}, options: {{acl_from: s3-tags}}}}]"
        )
        return source_catalog.load(file)

    bucket.s3.delete_object_tagging(Bucket=bucket.name, Key="docs/salaries.md")
    with Workbench(settings) as bench:
        harness.ingest(bench, specs("[staff]"), "r1")

        async def scenario(service: QueryService) -> None:
            assert "91,000" in (await cached(service, STAFF)).answer
            counters = await asyncio.to_thread(harness.ingest, bench, specs("[people]"), "r2")
            assert some(counters, *UNTOUCHED, "changed", "index_writes") == {
                **UNTOUCHED, "changed": 2, "index_writes": 2,
            }  # fmt: skip
            assert "91,000" not in (await ask(service, STAFF)).answer
            assert "91,000" in (await ask(service, HR)).answer

        served(settings, scenario)
        assert access(bench)["garden.md"] == ("default", ["staff"])
        harness.check_invariants(bench)


def test_a_bucket_that_throttles_or_denies_costs_no_document(
    tmp_path: Path,
    bucket: Bucket,
    s3_endpoint: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """P6: while it asks to slow down, denies the listing, the tags or every object, nothing is deleted, opened or
    dead-lettered; the next run goes on. One denied object is one dead letter and keeps its old text."""
    slow = Reply(503, b"<Error><Code>SlowDown</Code></Error>", {"Retry-After": "90"})
    no = Reply(403, b"<Error><Code>AccessDenied</Code></Error>")

    def is_object(asked: Asked) -> bool:
        return asked.path.endswith(".md") and "tagging" not in asked.query

    faults: list[Callable[[Asked], Reply | None]] = [
        lambda a: slow,
        lambda a: slow if "tagging" in a.query else None,
        lambda a: slow if is_object(a) else None,
        lambda a: no if "list-type" in a.query else None,
        lambda a: no if "tagging" in a.query else None,
        lambda a: no if is_object(a) else None,
    ]
    with before(s3_endpoint) as front, Workbench(harness.settings(tmp_path)) as bench:
        monkeypatch.setenv("AWS_ENDPOINT_URL", front.url)
        harness.ingest(bench, [bucket.spec()], "r0")
        for uri in ("salaries.md", "garden.md"):
            bucket.put(uri, b"# New\n\nThe text has changed.\n", acl="people")
        held = harness.identified(bench)
        for number, fault in enumerate(faults):
            front.fault = fault
            with pytest.raises(DependencyError):
                harness.ingest(bench, [bucket.spec()], f"fault-{number}")
            assert harness.identified(bench) == held
            assert bench.ledger.dead_letters.counts().get("open", 0) == 0
        front.fault = lambda a: no if a.path.endswith("garden.md") and is_object(a) else None
        bucket.put("garden.md", b"# New\n\nAnother text.\n", acl="people")
        last = harness.ingest(bench, [bucket.spec()], "last")
        assert some(last, "deleted", "dead_lettered") == {"deleted": 0, "dead_lettered": 1}
        assert access(bench) == {
            "salaries.md": ("default", ["people"]), "garden.md": ("default", ["people"]), "untagged.md": ("default", []),
        }  # fmt: skip
        assert any("Bees" in r["text"] for r in harness.index_rows(bench, "text"))
        harness.check_invariants(bench)


def test_a_text_that_comes_back_is_never_mistaken_for_another(tmp_path: Path, bucket: Bucket) -> None:
    """P1: the object is replaced between listing and fetch, and put back before the next listing: its ETag then
    is the one that was listed, and what is served must be its text."""
    first, second = b"# A\n\nThe first text.\n", b"# B\n\nThe second text, in between.\n"
    bucket.put("note.md", first, acl="staff")
    with Workbench(harness.settings(tmp_path)) as bench:
        from rag_platform.backends.sources.s3 import S3Source

        original = S3Source.list

        def racing(self: S3Source) -> Any:
            items = original(self)
            bucket.put("note.md", second, acl="people")
            return items

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(S3Source, "list", racing)
            harness.ingest(bench, [bucket.spec()], "r1")
        texts = {r["uri"]: r["text"] for r in harness.index_rows(bench, "uri", "text")}
        assert "second" in texts["note.md"] and access(bench)["note.md"] == ("default", ["people"])
        bucket.put("note.md", first, acl="staff")
        assert harness.ingest(bench, [bucket.spec()], "r2")["changed"] == 1
        texts = {r["uri"]: r["text"] for r in harness.index_rows(bench, "uri", "text")}
        assert "first" in texts["note.md"] and access(bench)["note.md"] == ("default", ["staff"])
        harness.check_invariants(bench)


def _documents(bench: Workbench) -> list[Any]:
    return list(bench.ledger.documents.of_source("docs").values())
