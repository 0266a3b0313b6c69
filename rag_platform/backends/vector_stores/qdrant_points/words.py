"""Text as a sparse vector whose dot product with a question is BM25.

Qdrant multiplies the weight of each word by its inverse document frequency (the ``idf`` modifier of a sparse
vector); term frequency and length are weighted here.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable

from rag_platform.backends.vector_stores import stems

K1 = 1.2
B = 0.75


def passage_weights(title: str, heading_path: str, text: str, average_words: float) -> dict[int, float]:
    """Return the weight of each word of a passage: ``tf·(k1+1) / (tf + k1·(1−b+b·length/average))``, by its hash.

    Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond (2009), eq. 3.15.

    Args:
        average_words: typical number of words of a passage. A constant, because a true average would change the
            weights of all passages with each that comes or goes.
    """
    counts = Counter(stems.of_passage(title, heading_path, text))
    norm = K1 * (1 - B + B * counts.total() / average_words)
    return _hashed((word, n * (K1 + 1) / (n + norm)) for word, n in counts.items())


def question_weights(text: str) -> dict[int, float]:
    """Return 1 for each word of a question, by its hash; empty when it holds none that can be found."""
    return _hashed((word, 1.0) for word in stems.of_question(text))


def _hashed(weights: Iterable[tuple[str, float]]) -> dict[int, float]:
    """By a 32-bit hash, as Qdrant numbers the dimensions. Words that collide add up (at a million different words
    one in four thousand has a partner)."""
    found: dict[int, float] = {}
    for word, weight in weights:
        at = zlib.crc32(word.encode())
        found[at] = found.get(at, 0.0) + weight
    return found
