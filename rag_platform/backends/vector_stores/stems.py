"""Words as the stores without an English analyser of their own should see them, cut as the LanceDB store cuts them:
pairs of characters where no spaces separate words, lower case, no accents, stop words left out, stems."""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from rag_platform.backends.vector_stores.lance.words import asked, indexed

LONGEST_WORD = 40
"""Characters; longer runs are encoded data, not words."""

STOP_WORDS = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "but",
        "by",
        "for",
        "if",
        "in",
        "into",
        "is",
        "it",
        "no",
        "not",
        "of",
        "on",
        "or",
        "such",
        "that",
        "the",
        "their",
        "then",
        "there",
        "these",
        "they",
        "this",
        "to",
        "was",
        "will",
        "with",
    ]
)
"""Lucene's English list, which LanceDB uses too."""

_WORD = re.compile(r"[^\W_]+")
_stemming = threading.Lock()
"""A stemmer keeps the word that it works on."""


def of_passage(title: str, heading_path: str, text: str) -> list[str]:
    """Return the stems that a passage is found by, in order, repeated as they are."""
    return list(_stems(indexed(f"{title}\n{heading_path}\n{text}")))


def of_question(text: str) -> list[str]:
    """Return the distinct stems of a question, sorted."""
    return sorted(set(_stems(asked(text))))


def _stems(text: str) -> Iterator[str]:
    for found in _WORD.finditer(text):
        word = found.group().lower()
        if len(word) <= LONGEST_WORD and word not in STOP_WORDS:
            yield _stemmed(word)


@lru_cache(maxsize=50_000)
def _stemmed(word: str) -> str:
    with _stemming:
        stem: str = _stemmer().stemWord(word)
    if stem.isascii():
        return stem
    return "".join(c for c in unicodedata.normalize("NFKD", stem) if not unicodedata.combining(c))


@lru_cache(maxsize=1)
def _stemmer() -> Any:
    import snowballstemmer

    return snowballstemmer.stemmer("english")
