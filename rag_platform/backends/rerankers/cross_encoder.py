"""A cross-encoder of one's own, in ONNX, on this machine."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rag_platform.backends.embedders.tokenizers import encodable
from rag_platform.backends.onnx_sessions import OnnxSessions, worker_count
from rag_platform.backends.rerankers.base import Candidate, RerankerSpec
from rag_platform.backends.rerankers.passages import passage
from rag_platform.backends.rerankers.scores import checked
from rag_platform.errors import ConfigurationError, DependencyError, DependencyTimeout
from rag_platform.identity import fingerprint
from rag_platform.settings import Settings as PlatformSettings
from rag_platform.settings import setting

if TYPE_CHECKING:
    import onnxruntime
    import tokenizers

NAME = "cross_encoder"
_DEPENDENCY = f"reranker:{NAME}"
_FILES = ("model.onnx", "tokenizer.json", "config.json")
_PING_S = 30.0


@dataclass(frozen=True)
class Settings:
    """``RAG_CROSS_ENCODER_…``"""

    dir: Path | None = setting(None, "Folder with model.onnx, tokenizer.json and config.json of a cross-encoder.")
    max_tokens: int = setting(512, "Longest pair of question and passage; the longer of the two is cut to fit.")
    max_candidates: int = setting(100, "Passages in one call.")

    def validate(self) -> Path:
        """Return the folder; raises ConfigurationError that names the variable."""
        if self.dir is None:
            raise ConfigurationError("cross_encoder needs RAG_CROSS_ENCODER_DIR, the folder of its model")
        if not 16 <= self.max_tokens <= 2**16:
            raise ConfigurationError("RAG_CROSS_ENCODER_MAX_TOKENS: must be between 16 and 65536")
        if not 1 <= self.max_candidates <= 10_000:
            raise ConfigurationError("RAG_CROSS_ENCODER_MAX_CANDIDATES: must be between 1 and 10000")
        return self.dir


class CrossEncoderReranker:
    """Scores (question, passage) pairs one by one: no padding, and pairs of other questions get their turns
    in between. Takes models with one logit (the score) or two classes (the difference of the logits).
    Safe to share between threads and event loops."""

    def __init__(self, own: Settings, folder: Path, workers: int) -> None:
        self._own = own
        self._folder = folder
        self._sessions = OnnxSessions(lambda: folder / "model.onnx", workers)
        self._lock = threading.Lock()
        self._loaded: tokenizers.Tokenizer | None = None

    @cached_property
    def spec(self) -> RerankerSpec:
        """Raises ConfigurationError when the folder lacks a file."""
        return RerankerSpec(
            name=NAME,
            model=self._folder.name,
            fingerprint=fingerprint(
                NAME, {"max_tokens": self._own.max_tokens, "files": [_sampled(self._folder / f) for f in _FILES]}
            ),
            max_candidates=self._own.max_candidates,
            usd_per_call=0.0,
        )

    async def rerank(self, question: str, candidates: Sequence[Candidate], *, timeout_s: float) -> list[float]:
        """Return the model's logits.

        Raises:
            DependencyTimeout: not done within ``timeout_s`` seconds.
            DependencyError: onnxruntime failed, or the model gave no finite logit.
            ConfigurationError: the model cannot be read or is no cross-encoder.
        """

        def run(session: onnxruntime.InferenceSession, text: str) -> float:
            return self._score(session, question, text)

        try:
            async with asyncio.timeout(timeout_s):
                scores = await self._sessions.map(run, [passage(c) for c in candidates])
        except TimeoutError as e:
            raise DependencyTimeout(_DEPENDENCY, f"{len(candidates)} pairs took longer than {timeout_s:.3g} s") from e
        return checked(scores, len(candidates), _DEPENDENCY)

    async def ping(self) -> None:
        await self.rerank("ping", [Candidate("ping", "", "", None, None, 0.0)], timeout_s=_PING_S)

    async def aclose(self) -> None:
        """Free the sessions. A later call opens them anew."""
        await self._sessions.aclose()

    def _score(self, session: onnxruntime.InferenceSession, question: str, text: str) -> float:
        encoding = self._tokenizer().encode(encodable(question), encodable(text))
        known = {
            "input_ids": encoding.ids,
            "attention_mask": encoding.attention_mask,
            "token_type_ids": encoding.type_ids,
            "position_ids": range(len(encoding.ids)),
        }
        feeds = {}
        for wanted in session.get_inputs():
            if wanted.name not in known:
                raise ConfigurationError(f"RAG_CROSS_ENCODER_DIR: the model wants an unknown input {wanted.name!r}")
            kind = np.int32 if wanted.type == "tensor(int32)" else np.int64
            feeds[wanted.name] = np.array([known[wanted.name]], dtype=kind)
        try:
            (logits, *_) = session.run(None, feeds)
        except Exception as e:  # onnxruntime's errors share no base class
            raise DependencyError(_DEPENDENCY, f"onnxruntime failed: {type(e).__name__}") from e
        classes = np.asarray(logits, dtype=np.float64).reshape(-1)
        if classes.size not in (1, 2):
            raise ConfigurationError(
                f"RAG_CROSS_ENCODER_DIR: the model gives {classes.size} values for a pair, not one score or two classes"
            )
        return float(classes[-1] - classes[0]) if classes.size == 2 else float(classes[0])

    def _tokenizer(self) -> tokenizers.Tokenizer:
        with self._lock:
            if self._loaded is None:
                from tokenizers import Tokenizer

                path = self._folder / "tokenizer.json"
                try:
                    tokenizer = Tokenizer.from_file(str(path))
                except Exception as e:  # the library raises bare exceptions
                    raise ConfigurationError(f"RAG_CROSS_ENCODER_DIR: cannot read {path}") from e
                tokenizer.no_padding()
                # Cuts the passage, and the question only where that is the longer of the two.
                tokenizer.enable_truncation(self._max_length(), strategy="longest_first")
                self._loaded = tokenizer
            return self._loaded

    def _max_length(self) -> int:
        """The setting, or what the model's position table holds."""
        path = self._folder / "config.json"
        try:
            config = json.loads(path.read_text())
            positions = int(config.get("max_position_embeddings") or self._own.max_tokens)
            # RoBERTa and its kin count positions from their padding id + 1.
            offset = int(config.get("pad_token_id") or 0) + 1 if "roberta" in str(config.get("model_type")) else 0
        except (OSError, ValueError, TypeError, AttributeError) as e:
            raise ConfigurationError(f"RAG_CROSS_ENCODER_DIR: cannot read {path}") from e
        return max(16, min(self._own.max_tokens, positions - offset))


def _sampled(path: Path) -> str:
    """Digest the size and 16 stretches of 64 KB: tells models apart without reading gigabytes."""
    try:
        with path.open("rb") as f:
            size = f.seek(0, os.SEEK_END)
            digest = hashlib.sha256(str(size).encode())
            for i in range(16):
                f.seek(i * size // 16)
                digest.update(f.read(65_536))
    except OSError as e:
        raise ConfigurationError(f"RAG_CROSS_ENCODER_DIR: cannot read {path}; it needs {', '.join(_FILES)}") from e
    return digest.hexdigest()


def build(settings: PlatformSettings) -> CrossEncoderReranker:
    """Build the reranker; does no I/O.

    Raises:
        ConfigurationError: no folder is set, or a value makes no sense.
    """
    own = settings.vendor(Settings, "RAG_CROSS_ENCODER_")
    return CrossEncoderReranker(own, own.validate(), worker_count(settings))
