"""Bytes to text when nobody says which encoding it is.

Order: byte-order mark, UTF-16/32 recognised by where the NULs stand, UTF-8 (with a few damaged bytes
replaced), then charset-normalizer on a bounded sample, and Windows-1252 when that has no opinion.
"""

from __future__ import annotations

import codecs
import re
from typing import Final

from rag_platform.errors import UnsupportedFormat

VERSION: Final = 1

_BOMS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAMPLE_BYTES: Final = 64 * 1024
_GUESS_BYTES: Final = 16 * 1024
_LATIN: Final = frozenset(
    [
        *(f"cp{n}" for n in (1250, 1252, 1254, 1257, 1258)),
        "latin_1",
        "hp_roman8",
        "mac_roman",
        "mac_latin2",
        "mac_iceland",
    ]
    + [f"iso8859_{n}" for n in (1, 2, 3, 4, 9, 10, 13, 14, 15, 16)]
)
_EASTERN_LANGUAGES: Final = frozenset(
    ("Polish", "Czech", "Slovak", "Slovene", "Croatian", "Hungarian", "Romanian", "Turkish", "Vietnamese", "Lithuanian")
)
_MIN_EVIDENCE: Final = 4
"""Bytes above ASCII that a guess needs (twice as many for encodings that use them in pairs)."""
_DECIDED_BEFORE: Final = ["utf_7", "utf_16", "utf_16_le", "utf_16_be", "utf_32", "utf_32_le", "utf_32_be"]
_MULTIBYTE_ENCODINGS: Final = frozenset(
    (
        "big5",
        "big5hkscs",
        "gb2312",
        "gbk",
        "gb18030",
        "cp932",
        "cp949",
        "cp950",
        "shift_jis",
        "euc_jp",
        "euc_kr",
        "johab",
    )
)
_BINARY_BYTES: Final = bytes(b for b in range(32) if b not in b"\t\n\x0b\x0c\r\x08\x1b\x1a")
_MAX_BINARY_SHARE: Final = 0.06
_MULTIBYTE: Final = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_HIGH: Final = re.compile(rb"[\x80-\xff]")


def decode(data: bytes, *, declared: str | None = None) -> tuple[str, str]:
    """Return the text and the name of the encoding that was used.

    Args:
        declared: what the document says about itself; believed when the bytes agree.

    Raises:
        UnsupportedFormat: the bytes are not text.
    """
    for bom, name in _BOMS:
        if data.startswith(bom):
            return data.decode(name, "replace"), name.removesuffix("-sig")
    wide = _without_bom(data[:_SAMPLE_BYTES])
    if wide is not None:
        return data.decode(wide, "replace"), wide
    _refuse_binary(data)
    try:
        return data.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        pass
    if _damaged_utf8(data):
        return data.decode("utf-8", "replace"), "utf-8"
    if declared is not None and (text := _try(data, declared)) is not None:
        return text, declared
    guessed = _guess(data) or "cp1252"
    if (text := _try(data, guessed)) is not None:
        return text, guessed
    return data.decode("cp1252", "replace"), "cp1252"


def is_text(data: bytes) -> bool:
    """Tell whether ``decode`` would accept the beginning of ``data``."""
    sample = data[:_SAMPLE_BYTES]
    if any(sample.startswith(bom) for bom, _ in _BOMS) or _without_bom(sample) is not None:
        return True
    try:
        _refuse_binary(sample)
    except UnsupportedFormat:
        return False
    return True


def _try(data: bytes, name: str) -> str | None:
    try:
        codec = codecs.lookup(name)
        if not codec._is_text_encoding:  # base64, zip and the like also register as codecs
            return None
        return data.decode(name)
    except (LookupError, ValueError):
        return None


def _without_bom(sample: bytes) -> str | None:
    """Recognise UTF-16 and UTF-32 of mostly Western text by the column in which the NULs stand."""
    size = len(sample) - len(sample) % 4
    nuls = sample.count(0)
    if size < 4 or nuls < 0.2 * len(sample):
        return None
    columns = [sample[i:size:4].count(0) / (size // 4) for i in range(4)]
    if sum(columns) / 4 > 0.95:
        return None
    high, low = 0.7, 0.1
    if columns[0] < low and min(columns[2:]) > high:
        return "utf-32-le"
    if columns[3] < low and min(columns[:2]) > high:
        return "utf-32-be"
    odd, even = (columns[1] + columns[3]) / 2, (columns[0] + columns[2]) / 2
    if odd > 0.4 and even < low:
        return "utf-16-le"
    if even > 0.4 and odd < low:
        return "utf-16-be"
    return None


def _refuse_binary(data: bytes) -> None:
    for sample in (data[:_SAMPLE_BYTES], data[len(data) // 2 :][:_SAMPLE_BYTES]):
        odd = len(sample) - len(sample.translate(None, _BINARY_BYTES))
        if odd > _MAX_BINARY_SHARE * len(sample):
            raise UnsupportedFormat("holds binary data, not text")


def _damaged_utf8(data: bytes) -> bool:
    """Tell whether the high bytes are mostly well-formed UTF-8, so that only a few are damaged, or
    whether there are too few of them to say what else it could be."""
    sample = data[:_SAMPLE_BYTES]
    high = len(_HIGH.findall(sample))
    good = sum(len(m) for m in _MULTIBYTE.findall(sample))
    return good >= 2 * (high - good) if high else True


def _guess(data: bytes) -> str | None:
    from charset_normalizer import from_bytes

    first = _HIGH.search(data)
    start = max(0, first.start() - _GUESS_BYTES // 4) if first else 0
    sample = data[start : start + _GUESS_BYTES]
    high = len(_HIGH.findall(sample))
    if high < _MIN_EVIDENCE:
        return "cp1252"
    best = from_bytes(sample, cp_exclusion=_DECIDED_BEFORE).best()
    if best is None:
        return None
    # The Latin code pages hardly differ, and charset-normalizer picks the first that fits: without a
    # language that needs another one, Windows-1252 is what Western files are written in.
    western = best.encoding in _LATIN and best.language not in _EASTERN_LANGUAGES
    too_short = best.encoding in _MULTIBYTE_ENCODINGS and high < 2 * _MIN_EVIDENCE
    return "cp1252" if western or too_short else best.encoding
