"""What Office Open XML documents share: strict namespaces, and text that lies in charts and drawings."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from typing import Final

from rag_platform.errors import CorruptDocument
from rag_platform.ingestion.parsers.base import Limits
from rag_platform.ingestion.parsers.containers import open_zip, read_member
from rag_platform.ingestion.parsers.tables import table_text
from rag_platform.ingestion.parsers.xml_tree import local, parse_xml

VERSION: Final = 1

_STRICT: Final = b"http://purl.oclc.org/ooxml/"
_STRICT_NAME: Final = re.compile(rb"http://purl\.oclc\.org/ooxml/([A-Za-z]{1,40})/([A-Za-z/]{1,80})")
_RENAMED: Final = ((b"extendedProperties", b"extended-properties"), (b"customProperties", b"custom-properties"))


def transitional(data: bytes, limits: Limits) -> bytes:
    """Rewrite ISO 29500 Strict namespaces as the transitional ones that the readers know; any other
    document comes back as it is.

    Raises:
        CorruptDocument: its container is damaged.
    """
    with open_zip(data, limits) as archive:
        if not any(_STRICT in read_member(archive, n) for n in archive.namelist() if n.lower() == "_rels/.rels"):
            return data
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as rewritten:
            for name in archive.namelist():
                content = read_member(archive, name)
                if name.endswith((".xml", ".rels")):
                    content = _STRICT_NAME.sub(_as_transitional, content)
                rewritten.writestr(name, content)
    return out.getvalue()


def _as_transitional(match: re.Match[bytes]) -> bytes:
    rest = match[2]
    for strict, loose in _RENAMED:
        rest = rest.replace(strict, loose)
    return b"http://schemas.openxmlformats.org/" + match[1] + b"/2006/" + rest


def chart_text(archive: zipfile.ZipFile, prefix: str) -> Iterator[str]:
    """Yield the titles, series and categories of each chart below ``prefix``."""
    for name in sorted(archive.namelist()):
        if name.startswith(f"{prefix}charts/chart") and name.endswith(".xml"):
            try:
                root = parse_xml(read_member(archive, name), recover=True)
            except CorruptDocument:
                continue
            titles = ["".join(t.text or "" for t in p.iter("{*}t")) for p in root.iter("{*}p")]
            rows = []
            for series in root.iter("{*}ser"):
                for part in series:
                    if local(part) in ("tx", "cat", "val", "xVal", "yVal"):
                        rows.append([v.text or "" for v in part.iter("{*}v")])
            text = "\n".join(filter(None, [*(" ".join(t.split()) for t in titles), table_text(rows)]))
            if text:
                yield text


def drawing_text(archive: zipfile.ZipFile, prefix: str) -> Iterator[str]:
    """Yield the text of shapes and charts that lie over a sheet."""
    for name in sorted(archive.namelist()):
        if name.startswith(f"{prefix}drawings/drawing") and name.endswith(".xml"):
            try:
                root = parse_xml(read_member(archive, name), recover=True)
            except CorruptDocument:
                continue
            for body in root.iter("{*}txBody"):
                lines = ["".join(t.text or "" for t in p.iter("{*}t")) for p in body.iter("{*}p")]
                if any(line.strip() for line in lines):
                    yield "\n".join(lines)
    yield from chart_text(archive, prefix)
