"""Context compression: what the generator gets to read, without what it has read already."""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence

from rag_platform.backends.embedders.base import Tokenizer
from rag_platform.query import sentences
from rag_platform.query.passage import Passage
from rag_platform.records import Hit

SHINGLE = 4
"""Words in a shingle, as in Broder, "On the resemblance and containment of documents", 1997."""
CONTAINED = 0.9
"""A chunk of whose shingles this share stands in one better chunk says nothing new."""

_WORD = re.compile(r"[\u2e80-\ud7ff]|[^\W\u2e80-\ud7ff]+")  # a CJK character is a word


def compress(hits: Sequence[Hit], tokenizer: Tokenizer, *, k: int, token_budget: int) -> list[Passage]:
    """Return the best passages of ``hits``, best first: at most ``k`` and at most ``token_budget`` tokens.

    A near-duplicate of a better hit is left out, unless it holds a number that the better one lacks; text that
    a better passage of the same document shows already (overlapping chunks) is cut off. The passage that would
    burst the budget ends at the last sentence that fits. Hits that are not empty give at least one passage.
    """
    passages: list[Passage] = []
    seen: list[tuple[frozenset[str], frozenset[str]]] = []
    left = token_budget
    for hit in hits:
        if len(passages) >= k or left <= 0:
            break
        start, end = _fresh(hit, passages)
        text = hit.text[start:end].rstrip()
        if not text:
            continue
        words = _WORD.findall(text.lower())
        shingles, numbers = _shingles(words), frozenset(w for w in words if w[0].isdigit())
        if any(_says_nothing_new(shingles, numbers, *earlier) for earlier in seen):
            continue
        cut, tokens = _fit(text, tokenizer, left)
        if not cut:
            if passages:
                break
            cut, tokens = _first_words(text, tokenizer, left), left
        seen.append((shingles, numbers))
        passages.append(
            Passage(len(passages) + 1, hit, hit.start + start, hit.start + start + cut, text[:cut], hit.score)
        )
        if cut < len(text):
            break
        left -= tokens
    if not passages and hits:  # every text is blank, or the limits leave room for nothing
        best = hits[0]
        passages.append(Passage(1, best, best.start, best.start + len(best.text), best.text, best.score))
    return passages


def _fresh(hit: Hit, passages: Sequence[Passage]) -> tuple[int, int]:
    """Return the part of the hit's text that no passage of the same version shows; empty where all is shown."""
    start, end = hit.start, hit.start + len(hit.text)
    for p in passages:
        if p.hit.document_id != hit.document_id or p.hit.version_id != hit.version_id:
            continue
        if p.start <= start < p.end:
            start = min(end, p.end)
        elif p.start < end <= p.end:
            end = max(start, p.start)
    start, end = start - hit.start, end - hit.start
    piece = hit.text[start:end]
    return start + len(piece) - len(piece.lstrip()), end


def _shingles(words: Sequence[str]) -> frozenset[str]:
    if len(words) <= SHINGLE:
        return frozenset([" ".join(words)])
    return frozenset(" ".join(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1))


def _says_nothing_new(
    shingles: frozenset[str], numbers: frozenset[str], kept: frozenset[str], kept_numbers: frozenset[str]
) -> bool:
    # Two pages that differ in a limit or a version only are not the same page.
    return numbers <= kept_numbers and len(shingles & kept) >= CONTAINED * len(shingles)


def _fit(text: str, tokenizer: Tokenizer, budget: int) -> tuple[int, int]:
    """Return (characters, tokens) of the beginning of ``text`` that fits and ends where a sentence does;
    (0, 0) when not even its first sentence (a heading alone is none) fits."""
    ends = tokenizer.offsets(text)[:, 1].tolist()
    if len(ends) <= budget:
        return len(text), len(ends)
    limit = ends[budget - 1]
    fitting = [(a, b) for a, b in sentences.split(text) if b <= limit]
    while fitting and sentences.line_kind(text[slice(*fitting[-1])]) == "heading":
        fitting.pop()  # a heading without what stands below it
    if not fitting:
        return 0, 0
    cut = fitting[-1][1]
    return cut, bisect.bisect_right(ends, cut)


def _first_words(text: str, tokenizer: Tokenizer, budget: int) -> int:
    """Return how many characters the first ``budget`` tokens and the word they end in take."""
    last = int(tokenizer.offsets(text)[budget - 1, 1])
    head = text[:last].rstrip()
    if last < len(text) and not text[last].isspace() and (space := re.search(r"\s\S*$", head[-80:])):
        head = head[: len(head) - len(space.group())]
    return len(head) or last
