"""P14 with real candidates: broken ones are refused, a better one serves, a rollback brings the old answers back, and a
client that asks without pause sees none of it but in the release that its answers name."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import pytest

from rag_platform.evaluation.golden import GoldenCase, GoldenSet, load, save
from rag_platform.ingestion.workbench import Workbench
from rag_platform_tests import harness
from rag_platform_tests.faults import minilm_server
from rag_platform_tests.faults.background import Background
from rag_platform_tests.faults.platform_process import Api, Platform, Reply
from rag_platform_tests.faults.processes import printing_its_port
from rag_platform_tests.integration.rag_command import Rag

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = (
    "backends/*", "scaling.md", "settings.md", "personnel/*", "evaluation.md", "cli.md", "dependencies.md", "deployment.md",
    "querying.md", "api.md", "architecture.md", "dagster.md", "indexing.md", "operations.md",
)  # fmt: skip
POLL_S = 0.5
FOLLOWS_S = 5.0
PAUSE_S = 0.1
DEADLINE_S = 5.0


def documents() -> dict[str, str]:
    """Return the Markdown of this project's documentation, without some long pages that nothing is asked about."""
    folder = ROOT / "docs"
    paths = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*.md"))}
    return {uri: p.read_text() for uri, p in paths.items() if not any(fnmatch(uri, pattern) for pattern in LEFT_OUT)}


def questions() -> list[GoldenCase]:
    """Return what the demo's golden set asks about them."""
    known = documents().keys()
    demo = load(ROOT / "rag_platform" / "evaluation" / "sets" / "demo.yaml")
    return [
        replace(case, spans=tuple(replace(s, source="docs") for s in case.spans))
        for case in demo.cases
        if case.spans and {s.uri for s in case.spans} <= known
    ]


class Client:
    """Asks at a steady rate and keeps what it is told.

    Attributes:
        cited: chunks that the answers of each release rest on.
        first_seen: when a release first answered, in seconds since the epoch.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self.cited: dict[str, set[str]] = {}
        self.first_seen: dict[str, float] = {}
        self.newest = ""
        self.asked = 0
        self._questions = questions()
        self._background = Background(self._ask_next, PAUSE_S)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Ask during the block; fails with the first answer that is not whole."""
        with self._background.running():
            yield

    def _ask_next(self, number: int) -> None:
        case = self._questions[number % len(self._questions)]
        self.check(self._api.ask(case.question, deadline_s=DEADLINE_S, use_cache=number % 3 != 0))

    def check(self, reply: Reply) -> None:
        """Whole, and without a failure."""
        assert reply.status == 200 and reply.is_full, reply
        self.newest = reply.body["release_id"]
        self.first_seen.setdefault(self.newest, time.time())
        self.cited.setdefault(self.newest, set()).update(c["chunk_id"] for c in reply.body["citations"])
        self.asked += 1

    def until(self, release: str) -> None:
        """Wait until an answer comes from a release."""
        give_up = time.monotonic() + 60
        while self.newest != release:
            self._background.check()
            assert time.monotonic() < give_up, f"still {self.newest}"
            time.sleep(0.02)


def told(api: Api) -> list[tuple[str, tuple[str, ...]]]:
    """Return text and cited chunks of the answer to every question, without the cache."""
    found = []
    for case in questions():
        body = api.ask(case.question, deadline_s=DEADLINE_S, use_cache=False).body
        found.append((body["answer"], tuple(c["chunk_id"] for c in body["citations"])))
    return found


def chunks_of(home: Path, environment: dict[str, str], release_id: str) -> set[str]:
    with Workbench(harness.settings(home, **environment)) as bench:
        release = bench.ledger.releases.get(release_id)
        assert release is not None
        store = bench.of_release(release).store
        return {row["chunk_id"] for b in store.scan(release.index_name, ["chunk_id"]) for row in b.to_pylist()}


def test_the_gate_decides_under_load(tmp_path: Path) -> None:
    """Wrong pooling, texts that the embedder cuts off, and chunks of twelve tokens are refused with the metric and the
    questions; chunks that hold a whole thought are promoted, and reach a running API within seconds; a rollback
    restores the old answers, word for word, and holds. No question fails or rests on two releases meanwhile."""
    tree = harness.Tree(tmp_path / "docs")
    tree.become(documents())
    home = tmp_path / "home"
    save(home / "golden" / "docs.yaml", GoldenSet("docs", tuple(questions())))
    with printing_its_port("rag_platform_tests.faults.minilm_server") as server:
        environment = {
            "RAG_EMBEDDER": "openai_compatible",
            "RAG_OPENAI_BASE_URL": f"http://127.0.0.1:{server.port}/v1",
            "RAG_OPENAI_API_KEY": "none",
            "RAG_OPENAI_MODEL": minilm_server.MODEL,
            "RAG_OPENAI_DIMENSIONS": str(minilm_server.DIMENSIONS),
            "RAG_CHUNK_TOKENS": "50",
            "RAG_RELEASE_POLL_S": str(POLL_S),
            "RAG_RERANKER": "none",
            "RAG_OCR": "off",
            "COLUMNS": "300",
        }

        def ingest(code: int, **changes: str) -> str:
            arguments = ("ingest", "--source", str(tree.root), "--name", "docs")
            return Rag(home, environment | changes)(*arguments, code=code).stderr

        rag = Rag(home, environment)
        ingest(0)
        [first] = [r["release_id"] for r in rag.json("release", "list")]
        with Platform(home, {}, {"RAG_HOME": str(home), **environment}).serving() as api:
            api.until_full(questions()[0].question, deadline_s=20, use_cache=False)
            before = told(api)
            client = Client(api)
            with client.asking():
                for changes, metric in (
                    ({"RAG_OPENAI_MODEL": minilm_server.FIRST_TOKEN}, "vector_recall_at_10"),
                    ({"RAG_OPENAI_MODEL": minilm_server.TRUNCATED}, "vector_recall_at_10"),
                    ({"RAG_CHUNK_TOKENS": "12"}, "ndcg_at_10"),
                ):
                    refused = ingest(5, **changes)
                    assert "does not pass the gate" in refused and f"docs: {metric} is 0." in refused, refused
                    assert any(case.question in refused for case in questions()), refused
                    assert client.cited.keys() == {first}

                better = {"RAG_CHUNK_TOKENS": "200"}
                ingest(0, **better)
                [second] = [r for r in rag.json("release", "list") if r["state"] == "serving"]
                client.until(second["release_id"])
                followed = client.first_seen[second["release_id"]] - second["promoted_at"]
                assert second["release_id"] != first and followed < FOLLOWS_S
                better_told = told(api)
                assert better_told != before

                rag("release", "rollback", "--reason", "the readers liked the old one")
                client.until(first)
                assert told(api) == before
                held = ingest(5, **better)
                assert "was rolled back" in held and "the readers liked the old one" in held, held
                assert client.newest == first

                rag("release", "promote", second["release_id"])
                client.until(second["release_id"])
                assert told(api) == better_told
        for release, cited in client.cited.items():
            assert cited and cited <= chunks_of(home, environment, release), "an answer rests on two releases"
        assert client.asked > 100, "too few questions to show anything"
        decided = [(d["decision"], d["by"]) for d in rag.json("release", "show", second["release_id"])["decisions"]]
        assert decided == [("promoted", "cli"), ("rolled_back", "cli"), ("promoted", "gate")]
