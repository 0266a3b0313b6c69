"""Token vectors, with the real model, and the sessions that they share with the embedder."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from rag_platform.backends.embedders.onnx_minilm import OnnxMiniLMEmbedder
from rag_platform.backends.onnx_sessions import OnnxSessions
from rag_platform.backends.token_encoder import TokenEncoder
from rag_platform.errors import ConfigurationError, DependencyTimeout
from rag_platform.settings import Settings

T = TypeVar("T")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("cache")
    return Settings.from_env({"RAG_CACHE_DIR": str(folder), "RAG_HOME": str(folder / "home"), "RAG_EMBED_WORKERS": "2"})


def run(owner: TokenEncoder | OnnxSessions, work: Awaitable[T]) -> T:
    async def main() -> T:
        try:
            return await work
        finally:
            await owner.aclose()

    return asyncio.run(main())


TEXTS = ["How do I drain a node?", "Müller straße, 漢字かな, e\u0301 \U0001f600", "", "word " * 400, "a \ud800 b"]


def test_shapes_and_units(settings: Settings) -> None:
    """Every text gets int32 ids and offsets and float32 unit vectors, none for special tokens; an empty
    text has no tokens and still a pooled vector."""
    encoder = TokenEncoder(settings)
    for text, found in zip(TEXTS, run(encoder, encoder.encode(TEXTS)), strict=True):
        n = len(found.ids)
        assert found.ids.dtype == found.offsets.dtype == np.int32
        assert found.offsets.shape == (n, 2) and found.vectors.shape == (n, encoder.dimensions)
        assert found.vectors.dtype == found.pooled.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(found.pooled), 1, atol=1e-5)
        assert not np.isin(found.ids, [101, 102]).any()
        assert (found.offsets[:, 0] < found.offsets[:, 1]).all() and (found.offsets <= len(text)).all()
        assert (n == 0) == (text == "")


def test_offsets_point_at_the_words(settings: Settings) -> None:
    """A token's offsets cut its own characters out of the text."""
    encoder = TokenEncoder(settings)
    text = "Drain the Node, Müller!"
    [found] = run(encoder, encoder.encode([text]))
    assert "".join(text[a:b] for a, b in found.offsets) == text.replace(" ", "")
    assert [text[a:b] for a, b in found.offsets[:4]] == ["Drain", "the", "Node", ","]


def test_cut_at_max_tokens(settings: Settings) -> None:
    """A long text keeps its first tokens, [CLS] and [SEP] counted."""
    encoder = TokenEncoder(settings)
    [short] = run(encoder, encoder.encode(["word " * 400], max_tokens=12))
    assert len(short.ids) == 10 and short.offsets[-1, 1] == len("word " * 10) - 1


def test_pooled_is_the_embedders_vector(settings: Settings) -> None:
    """The pooled vector is what the local embedder gives, bit for bit, whatever the company."""
    encoder, embedder = TokenEncoder(settings), OnnxMiniLMEmbedder(settings)

    async def main() -> tuple[list[Any], Any]:
        try:
            return list(await encoder.encode(TEXTS)), (await embedder.embed(TEXTS[::-1])).vectors[::-1]
        finally:
            await encoder.aclose()
            await embedder.aclose()

    found, vectors = asyncio.run(main())
    np.testing.assert_array_equal(np.stack([f.pooled for f in found]), vectors)


def test_same_meaning_in_context_is_near(settings: Settings) -> None:
    """A word is nearer to its paraphrase in context than to an unrelated word."""
    encoder = TokenEncoder(settings)
    question, good, bad = run(
        encoder, encoder.encode(["drain a node", "evict all pods from the machine", "bake the apple pie"])
    )
    assert (question.vectors @ good.vectors.T).max(axis=1).mean() > (question.vectors @ bad.vectors.T).max(
        axis=1
    ).mean()


def test_deadline(settings: Settings) -> None:
    """A deadline that cannot be kept is a timeout, and the next call works."""
    encoder = TokenEncoder(settings)
    with pytest.raises(DependencyTimeout):
        run(encoder, encoder.encode(["word " * 200] * 100, timeout_s=1e-4))
    assert len(run(encoder, encoder.encode(["ok"]))) == 1


def test_no_texts_and_no_io(tmp_path: Path) -> None:
    """Construction and an empty call load no model."""
    code = (
        "import asyncio, sys; from rag_platform.backends.token_encoder import TokenEncoder;"
        "from rag_platform.settings import Settings; e = TokenEncoder(Settings.from_env());"
        "assert asyncio.run(e.encode([])) == [] and e.dimensions == 384 and e.fingerprint;"
        "assert not {'onnxruntime', 'onnx'} & set(sys.modules)"
    )
    environ = {"RAG_CACHE_DIR": str(tmp_path / "c"), "RAG_HOME": str(tmp_path / "h"), "PATH": os.defpath}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], env=environ, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and not (tmp_path / "c").exists()


def test_sessions_are_shared_and_freed(settings: Settings) -> None:
    """Embedder and encoder open together no more sessions than there are workers; the last one to close
    frees them."""
    opened: list[int] = []
    lock = threading.Lock()

    def note(session: Any, _: int) -> int:
        with lock:
            opened.append(id(session))
        return id(session)

    embedder, encoder = OnnxMiniLMEmbedder(settings), TokenEncoder(settings)

    async def main() -> None:
        await asyncio.gather(embedder.embed(["x"] * 20), encoder.encode(["y"] * 20))
        await asyncio.gather(embedder._sessions.map(note, range(50)), encoder._sessions.map(note, range(50)))
        assert 1 <= len(set(opened)) <= 2
        await embedder.aclose()
        again = await encoder._sessions.map(note, range(10))
        assert set(again) <= set(opened)  # the encoder still has them
        await encoder.aclose()
        assert encoder._sessions._pool is None and embedder._sessions._pool is None
        assert len(await encoder.encode(["later"])) == 1
        await encoder.aclose()

    asyncio.run(main())


def test_turns_are_fair(settings: Settings) -> None:
    """With one worker, a call that comes in behind two bulk calls gets its turn after one more item, and the
    bulk calls advance in step."""
    sessions = OnnxSessions(TokenEncoder(settings)._sessions._locate, 1, fuse=False)
    order: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def item(_: Any, name: str) -> None:
        order.append(name)
        if len(order) == 1:
            begun.set()
            go_on.wait(60)

    async def main() -> None:
        bulk = [asyncio.ensure_future(sessions.map(item, [name] * 20)) for name in "ab"]
        await asyncio.to_thread(begun.wait, 60)
        question = asyncio.ensure_future(sessions.map(item, ["q"]))
        while not (sessions._pool is not None and len(sessions._pool._fresh) == 2):
            await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(question, *bulk)

    run(sessions, main())
    assert order.index("q") <= 4, order
    middle = order[6:30]
    assert abs(middle.count("a") - middle.count("b")) <= 2, order


def test_a_cancelled_call_frees_the_workers(settings: Settings) -> None:
    """Of a call that was given up, no further item is begun."""
    sessions = OnnxSessions(TokenEncoder(settings)._sessions._locate, 1, fuse=False)
    count = 0
    begun, go_on = threading.Event(), threading.Event()

    def item(_: Any, __: int) -> None:
        nonlocal count
        count += 1
        begun.set()
        go_on.wait(60)

    async def main() -> None:
        bulk = asyncio.ensure_future(sessions.map(item, range(100)))
        await asyncio.to_thread(begun.wait, 60)
        bulk.cancel()
        await asyncio.gather(bulk, return_exceptions=True)
        go_on.set()
        assert await sessions.map(lambda _, x: x + 1, [1, 2]) == [2, 3]

    run(sessions, main())
    assert count == 1


def test_an_error_of_one_item_ends_the_call(settings: Settings) -> None:
    """What one item raises is what the call raises; the sessions go on."""
    sessions = OnnxSessions(TokenEncoder(settings)._sessions._locate, 2, fuse=False)

    def item(_: Any, x: int) -> int:
        if x == 3:
            raise KeyError("three")
        return x

    async def main() -> None:
        with pytest.raises(KeyError, match="three"):
            await sessions.map(item, range(10))
        assert await sessions.map(item, [0, 1]) == [0, 1]

    run(sessions, main())


def test_unreadable_model_is_a_configuration_error(tmp_path: Path) -> None:
    """A file that onnxruntime refuses is named."""
    broken = tmp_path / "model.onnx"
    broken.write_bytes(b"not a model")
    sessions = OnnxSessions(lambda: broken, 1)
    with pytest.raises(ConfigurationError, match=r"model\.onnx"):
        run(sessions, sessions.map(lambda _, x: x, [1]))
