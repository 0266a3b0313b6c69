"""Text as the word index should see it.

LanceDB's default tokenizer cuts at white space and punctuation, so a sentence of Chinese, Japanese
or Thai would be one word. Here such stretches become overlapping pairs of characters (as Lucene's
CJKAnalyzer does), which needs no dictionary and cuts a question exactly as it cut the text. The
ICU tokenizer that LanceDB also has segments them by dictionary, but keeps ``v1.27.3`` and
``foo_bar`` whole and cost three points of nDCG on documentation pages.
"""

from __future__ import annotations

import itertools
import re
import unicodedata

_UNSPACED = re.compile(
    "["
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Myanmar, Khmer
    "\u1100-\u11ff\uac00-\ud7af"  # Hangul
    "\u3005\u3040-\u30ff\u31f0-\u31ff"  # kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"  # Han
    "]+"
)


def indexed(text: str) -> str:
    """Return ``text`` for the index: compatibility forms unified, unspaced scripts as characters and pairs."""
    return _spaced(text, single=True)


def asked(text: str) -> str:
    """Return a question for the same index: pairs only, so that a common character alone finds nothing."""
    return _spaced(text, single=False)


def _spaced(text: str, *, single: bool) -> str:
    if text.isascii():
        return text
    text = unicodedata.normalize("NFKC", text)  # ligatures of PDF files, full-width letters

    def pairs(run: re.Match[str]) -> str:
        characters = run.group()
        grams = [a + b for a, b in itertools.pairwise(characters)]
        if single or not grams:
            grams += characters
        return f" {' '.join(grams)} "

    return _UNSPACED.sub(pairs, text)
