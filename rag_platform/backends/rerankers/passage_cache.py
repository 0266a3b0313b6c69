"""Token vectors of the passages judged last: hot documents come up again and again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np

from rag_platform.backends.token_encoder import TokenVectors


@dataclass(frozen=True, slots=True)
class PackedPassage:
    """Token vectors in a quarter of their size.

    Attributes:
        ids: int32 (tokens,).
        codes: int8 (tokens, dimensions); ``scales``: float32 (tokens, 1), what they are multiplied by.
        pooled: float32 (dimensions,), unit length.
    """

    ids: np.ndarray[Any, np.dtype[np.int32]]
    codes: np.ndarray[Any, np.dtype[np.int8]]
    scales: np.ndarray[Any, np.dtype[np.float32]]
    pooled: np.ndarray[Any, np.dtype[np.float32]]

    @classmethod
    def pack(cls, encoded: TokenVectors) -> PackedPassage:
        scales = np.abs(encoded.vectors).max(axis=1, keepdims=True, initial=1e-6) / np.float32(127)
        codes = np.rint(encoded.vectors / scales).astype(np.int8)
        return cls(encoded.ids, codes, scales.astype(np.float32), encoded.pooled)

    @property
    def vectors(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """float32 (tokens, dimensions), of unit length to three decimals."""
        return self.codes.astype(np.float32) * self.scales

    @property
    def size(self) -> int:
        """Bytes that it takes in memory."""
        return self.ids.nbytes + self.codes.nbytes + self.scales.nbytes + self.pooled.nbytes + 1000


class PassageCache:
    """The passages used last, by the hash of their text, within ``max_bytes``. Thread-safe."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._held: OrderedDict[str, PackedPassage] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> PackedPassage | None:
        with self._lock:
            found = self._held.get(key)
            if found is not None:
                self._held.move_to_end(key)
            return found

    def put(self, key: str, passage: PackedPassage) -> None:
        with self._lock:
            old = self._held.pop(key, None)
            self._bytes += passage.size - (old.size if old else 0)
            self._held[key] = passage
            while self._bytes > self._max_bytes:
                self._bytes -= self._held.popitem(last=False)[1].size

    @property
    def bytes(self) -> int:
        """Bytes held now."""
        return self._bytes

    def clear(self) -> None:
        with self._lock:
            self._held.clear()
            self._bytes = 0
