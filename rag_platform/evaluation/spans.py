"""Which chunks hold which gold spans.

A gold span is words of a document, so it is compared with the words of the chunks, white space aside: parsers and
chunkers differ in it and it means nothing. How a document was cut does not matter either: a quote that falls across
chunks is covered as soon as the chunks that were found hold half of it between them.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence

from rag_platform.evaluation.golden import GoldSpan
from rag_platform.records import Hit

SHARE = 0.5
"""Share of a quote's characters that must be found: a quote that the chunker cut in two is found with the longer
part."""
MIN_OVERLAP = 16
"""Characters, white space aside, from which a part of a quote counts: shorter ones are shared by chance. A shorter quote
must be there as a whole."""
_INVISIBLE = re.compile(r"[\s\u00ad\u200b-\u200f\u2060\ufeff]+")


def covered(hit: Hit, spans: Sequence[GoldSpan]) -> frozenset[int]:
    """Return the indices of the spans that this chunk alone covers: same document, and at least ``SHARE`` of the
    quote's characters."""
    return coverage([hit], spans)[0]


def coverage(hits: Sequence[Hit], spans: Sequence[GoldSpan]) -> list[frozenset[int]]:
    """Return what each chunk of a ranking covers, best first.

    A chunk covers a span when it holds at least ``SHARE`` of the quote's characters, or when it completes that share
    together with the chunks before it (then it is the one that covers). Of small chunks several are needed, of large
    ones one: rankings of releases that chunk differently can be compared.

    Returns:
        list of sets of indices into ``spans``, as long as ``hits``.
    """
    quotes = [squeeze(span.quote) for span in spans]
    held: list[set[int]] = [set() for _ in spans]
    seen: dict[tuple[str, str], dict[int, Hit]] = {}
    result = []
    for hit in hits:
        meant = [i for i, s in enumerate(spans) if s.uri == hit.uri and s.source in (None, hit.source)]
        here: set[int] = set()
        if meant:
            found = seen.setdefault((hit.document_id, hit.version_id), {})
            found[hit.ordinal] = hit
            alone, joined = squeeze(hit.text), squeeze(_stretch(hit, found))
            for index in meant:
                quote, needed, before = quotes[index], _needed(quotes[index]), len(held[index])
                held[index].update(_shared(quote, joined))
                if len(_shared(quote, alone)) >= needed or before < needed <= len(held[index]):
                    here.add(index)
        result.append(frozenset(here))
    return result


def squeeze(text: str) -> str:
    """Return ``text`` as quotes are compared: NFC, without white space and invisible characters."""
    return _INVISIBLE.sub("", unicodedata.normalize("NFC", text))


def _stretch(hit: Hit, found: Mapping[int, Hit]) -> str:
    """Return the text of a chunk with that of its neighbours, as far as they were found without a gap."""
    first = last = hit.ordinal
    while first - 1 in found:
        first -= 1
    while last + 1 in found:
        last += 1
    text, end = "", 0
    for part in (found[n] for n in range(first, last + 1)):
        text += "\n" + part.text[max(0, end - part.start) if text else 0 :]  # neighbours may share text
        end = part.end
    return text


def _needed(quote: str) -> int:
    """Return how many characters of a squeezed quote must be found."""
    return max(math.ceil(len(quote) * SHARE), min(len(quote), MIN_OVERLAP))


def _shared(quote: str, text: str) -> range:
    """Return the indices of the quote's characters that a chunk's text holds (both squeezed): the quote is inside the
    chunk, the chunk inside the quote, or one ends with what the other begins with."""
    if quote in text:
        return range(len(quote))
    least = MIN_OVERLAP
    if len(text) >= least and text in quote:
        at = quote.index(text)
        return range(at, at + len(text))
    head = next((n for n in range(len(quote) - 1, least - 1, -1) if text.endswith(quote[:n])), 0)
    tail = next((n for n in range(len(quote) - 1, least - 1, -1) if text.startswith(quote[-n:])), 0)
    return range(head) if head >= tail else range(len(quote) - tail, len(quote))
