"""Names and properties in Weaviate: two collections an index, one for rows and one for its manifest.

What is filtered on is stored a second time as the hexadecimal of its UTF-8 bytes: Weaviate trims white space from
values and reads ``*`` and ``?`` in prefixes, and hexadecimal has neither, while equal stays equal and a prefix a prefix.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Any

from rag_platform.backends.vector_stores import stems
from rag_platform.backends.vector_stores.filters import FIELDS
from rag_platform.records import HIT_COLUMNS, Hit

ROWS, MANIFEST = "RagRows_", "RagManifest_"
TEXTS = sorted({name for name, (kind, ops) in FIELDS.items() if kind is str and "has" not in ops} | {"tenant"})
LISTS = ("acl", "tags")
NUMBERS = ("page", "modified_at")
PLAIN = ("chunk_id", "write_id")
"""Of our own making: hexadecimal and hyphens, filtered on as they are."""
WORDS = "words"


def filtered(name: str) -> str:
    """Return the property that holds a field's values as filters see them."""
    return f"f_{name}"


def coded(value: str) -> str:
    """Return a value as filters see it; what cannot be encoded equals nothing."""
    return "x" + value.encode("utf-8", "replace").hex()


def collection(prefix: str, index: str) -> str:
    """Return the collection of an index. Weaviate allows letters, digits and ``_`` in names."""
    return prefix + re.sub(r"[^A-Za-z0-9]", lambda m: f"_{ord(m.group()):02x}", index)


def index_of(name: str) -> str | None:
    """Return the index whose rows a collection holds; None: it is no collection of ours."""
    if not name.startswith(ROWS):
        return None
    return re.sub(r"_([0-9a-f]{2})", lambda m: chr(int(m.group(1), 16)), name.removeprefix(ROWS))


def object_id(*parts: str) -> str:
    """Return the UUID of an object."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, "\x00".join(parts)))


def of_row(row: Mapping[str, Any], write_id: str) -> dict[str, Any]:
    """Return the properties of a row. Weaviate stores no null, so what is missing is left out."""
    kept = {name: row[name] for name in HIT_COLUMNS if row[name] is not None}
    kept |= {filtered(name): coded(row[name]) for name in TEXTS}
    kept |= {filtered(name): [coded(v) for v in row[name]] for name in LISTS}
    kept |= {filtered(name): float(row[name]) for name in NUMBERS if row[name] is not None}
    words = stems.of_passage(row["title"], row["heading_path"], row["text"])
    return kept | {"write_id": write_id, WORDS: " ".join(words)}


def row_of(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a row from its properties."""
    row: dict[str, Any] = {name: properties.get(name) for name in HIT_COLUMNS}
    row["write_id"] = properties["write_id"]
    for name in LISTS:
        row[name] = list(row[name] or ())
    for name in ("ordinal", "start", "end", "page"):
        row[name] = None if row[name] is None else int(row[name])
    for name, value in row.items():  # an empty text comes back as nothing
        if value is None and name not in NUMBERS:
            row[name] = ""
    return row


def hit_of(properties: Mapping[str, Any], score: float) -> Hit:
    """Return a row as a hit."""
    row = row_of(properties)
    values: dict[str, Any] = {name: tuple(row[name]) if name in LISTS else row[name] for name in HIT_COLUMNS}
    return Hit(**values, score=score)


def row_schema() -> list[Any]:
    """Return the properties of a collection of rows."""
    from weaviate.classes.config import DataType, Property, Tokenization

    def text(name: str, *, many: bool = False, how: Any = Tokenization.FIELD, **indexed: bool) -> Any:
        kind = DataType.TEXT_ARRAY if many else DataType.TEXT
        options: dict[str, Any] = {"index_filterable": False, "index_searchable": False} | indexed
        return Property(name=name, data_type=kind, tokenization=how, **options)

    def number(name: str, kind: Any, *, index: bool) -> Any:
        return Property(name=name, data_type=kind, index_filterable=index, index_searchable=False)

    integers = {"ordinal", "start", "end", "page"}
    found: list[Any] = []
    for name in HIT_COLUMNS:
        if name in integers:
            found.append(number(name, DataType.INT, index=name == "ordinal"))
        elif name in NUMBERS:
            found.append(number(name, DataType.NUMBER, index=False))
        else:
            found.append(text(name, many=name in LISTS, index_filterable=name in PLAIN))
    found += [text(filtered(name), index_filterable=True) for name in TEXTS]
    found += [text(filtered(name), many=True, index_filterable=True) for name in LISTS]
    found += [number(filtered(name), DataType.NUMBER, index=True) for name in NUMBERS]
    found.append(text("write_id", index_filterable=True))
    found.append(text(WORDS, how=Tokenization.WHITESPACE, index_searchable=True))
    return found


def manifest_schema() -> list[Any]:
    """Return the properties of a manifest. What changes in an entry is not indexed, so that exchanging one changes a
    single object and nothing beside it."""
    from weaviate.classes.config import DataType, Property, Tokenization

    off: dict[str, Any] = {"index_filterable": False, "index_searchable": False}
    return [
        Property(
            name="document_id",
            data_type=DataType.TEXT,
            tokenization=Tokenization.FIELD,
            index_filterable=True,
            index_searchable=False,
        ),
        Property(name="write_id", data_type=DataType.TEXT, tokenization=Tokenization.FIELD, **off),
        Property(name="chunks", data_type=DataType.INT, **off),
    ]
