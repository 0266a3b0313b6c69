"""A question as a vector of its words, for finding the nearest earlier one when no embedder answers."""

from __future__ import annotations

import zlib
from itertools import pairwise

import numpy as np

from rag_platform.backends.caches.base import Vector
from rag_platform.query.wording.words import content_stems

DIMENSIONS = 512
_PAIR_WEIGHT = 0.5


def word_vector(question: str) -> Vector | None:
    """Return the hashed bag of its content words and of their neighbours: float32 (512,), unit length; None
    when it has no content word.

    Signed hashing (Weinberger et al. 2009): two words that share a place cancel as often as they add.
    """
    stems = content_stems(question)
    if not stems:
        return None
    vector = np.zeros(DIMENSIONS, dtype=np.float32)
    features = [(s, 1.0) for s in dict.fromkeys(stems)] + [(f"{a} {b}", _PAIR_WEIGHT) for a, b in pairwise(stems)]
    for feature, weight in features:
        code = zlib.crc32(feature.encode("utf-8", "surrogatepass"))
        vector[code % DIMENSIONS] += weight if code & 0x80000000 else -weight
    length = float(np.linalg.norm(vector))
    return vector / length if length > 0 else None
