"""The ONNX cross-encoder, on a tiny real model built here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from onnx import TensorProto

from rag_platform import backends
from rag_platform.backends.rerankers.base import Reranker
from rag_platform.errors import ConfigurationError
from rag_platform.settings import Settings
from rag_platform_tests.backends import tiny_cross_encoder
from rag_platform_tests.contracts.rerankers import (
    CANDIDATES,
    PATIENCE_S,
    QUESTION,
    RerankerContract,
    candidate,
    run,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_cross_encoder.build(tmp_path_factory.mktemp("models") / "tiny")


def cross_encoder(folder: Path, **environ: str) -> Reranker:
    settings = Settings.from_env({"RAG_CROSS_ENCODER_DIR": str(folder), "RAG_EMBED_WORKERS": "2", **environ})
    built: Reranker = backends.load("rerankers", "cross_encoder").build(settings)
    return built


def scores_of(reranker: Reranker, question: str, *texts: str) -> list[float]:
    return run(reranker, reranker.rerank(question, [candidate(t) for t in texts], timeout_s=PATIENCE_S))


class TestContract(RerankerContract):
    @pytest.fixture
    def reranker(self, model: Path) -> Iterator[Reranker]:
        yield cross_encoder(model)


def test_the_pair_is_read_as_question_and_passage(model: Path) -> None:
    """The logit is the model's own: words of the question that the passage holds, and the closing [SEP]."""
    assert scores_of(cross_encoder(model), "drain the node", "drain a node", "pie", "the") == [3.0, 1.0, 2.0]


def test_headings_are_read_too(model: Path) -> None:
    """A passage is judged below its heading path."""
    reranker = cross_encoder(model)
    pair = [candidate("see below", heading="Nodes › drain"), candidate("see below")]
    with_heading, without = run(reranker, reranker.rerank("drain", pair, timeout_s=PATIENCE_S))
    assert with_heading > without


def test_two_classes_and_other_integers(model: Path, tmp_path: Path) -> None:
    """A model with two classes gives the difference of its logits; int32 inputs are fed as such."""
    two = tiny_cross_encoder.build(tmp_path / "two", classes=2, integers=TensorProto.INT32)
    one = scores_of(cross_encoder(model), QUESTION, *(c.text for c in CANDIDATES))
    assert scores_of(cross_encoder(two), QUESTION, *(c.text for c in CANDIDATES)) == [2 * s for s in one]


def test_models_that_are_no_cross_encoder(tmp_path: Path) -> None:
    """Three classes, or an input that nobody knows, are refused with the reason."""
    three = cross_encoder(tiny_cross_encoder.build(tmp_path / "three", classes=3))
    with pytest.raises(ConfigurationError, match="3 values"):
        run(three, three.ping())
    odd = cross_encoder(tiny_cross_encoder.build(tmp_path / "odd", extra_input="pixel_values"))
    with pytest.raises(ConfigurationError, match="pixel_values"):
        run(odd, odd.ping())


def test_long_pairs_are_cut(model: Path, tmp_path: Path) -> None:
    """The passage is cut at RAG_CROSS_ENCODER_MAX_TOKENS or at the model's positions, whichever is less; an
    endless question leaves room for the passage."""
    late = "word " * 40 + "drain"
    assert scores_of(cross_encoder(model), "drain", late) == [2.0]
    assert scores_of(cross_encoder(model, RAG_CROSS_ENCODER_MAX_TOKENS="32"), "drain", late) == [1.0]
    few = tiny_cross_encoder.build(tmp_path / "few")
    (few / "config.json").write_text(json.dumps({"model_type": "bert", "max_position_embeddings": 32}))
    assert scores_of(cross_encoder(few), "drain", late) == [1.0]
    endless = "word " * 100 + "drain"
    assert scores_of(cross_encoder(few), endless, "word", "drain") == [29.0, 1.0]


def test_fingerprint_tells_models_apart(model: Path, tmp_path: Path) -> None:
    """Other weights, tokenizer or length give another fingerprint; the same files elsewhere do not."""
    copy = tiny_cross_encoder.build(tmp_path / "copy")
    assert cross_encoder(copy).spec.fingerprint == cross_encoder(model).spec.fingerprint
    other = tiny_cross_encoder.build(tmp_path / "other", classes=2)
    prints = {
        cross_encoder(model).spec.fingerprint,
        cross_encoder(other).spec.fingerprint,
        cross_encoder(model, RAG_CROSS_ENCODER_MAX_TOKENS="64").spec.fingerprint,
    }
    assert len(prints) == 3 and cross_encoder(other).spec.model == "other"


def test_missing_pieces_name_the_setting(tmp_path: Path, model: Path) -> None:
    """No folder, an empty one, broken files and nonsense values are configuration errors."""
    for environ in ({"RAG_CROSS_ENCODER_DIR": ""}, {"RAG_CROSS_ENCODER_MAX_TOKENS": "3"}):
        with pytest.raises(ConfigurationError, match=next(iter(environ))):
            cross_encoder(model, **environ)
    empty = cross_encoder(tmp_path)
    with pytest.raises(ConfigurationError, match="RAG_CROSS_ENCODER_DIR"):
        _ = empty.spec
    for file in ("tokenizer.json", "config.json", "model.onnx"):
        broken = tiny_cross_encoder.build(tmp_path / file)
        (broken / file).write_bytes(b"broken")
        with pytest.raises(ConfigurationError, match=file):
            run(cross_encoder(broken), cross_encoder(broken).ping())
