"""The properties of a Notion page, most of them of a row of a database: as text, and as tags."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rag_platform.backends.sources.notion_text import plain

INLINE = 25
"""As many values as a page object holds of one property."""
_LISTS = ("rich_text", "people")
_CHOICES = ("select", "status", "multi_select")
_LEFT_OUT = ("title", "relation", "last_edited_time", "last_edited_by", "button")
"""The title is the heading; a relation holds ids only; what moves with every edit says nothing."""

Property = Mapping[str, Any]
MoreItems = Callable[[str], list[dict[str, Any]]]
"""Gives all items of the property with an id."""


def title(page: Property) -> str:
    """Return the page's title, ``Untitled`` without one."""
    found = next((p for p in page["properties"].values() if p.get("type") == "title"), None)
    return " ".join(plain(found["title"]).split()) if found and plain(found["title"]).strip() else "Untitled"


def tags(page: Property) -> tuple[str, ...]:
    """Return the chosen options of the page's select, multi-select and status properties, sorted."""
    found: set[str] = set()
    for value in page["properties"].values():
        kind = value.get("type")
        if kind in _CHOICES and value.get(kind):
            chosen = value[kind] if kind == "multi_select" else [value[kind]]
            found.update(str(option["name"]) for option in chosen)
    return tuple(sorted(found))


def lines(page: Property, more: MoreItems) -> list[str]:
    """Return ``- Name: value`` of every property that says something, by name."""
    found = []
    for name, value in sorted(page["properties"].items()):
        if value.get("type") in _LEFT_OUT:
            continue
        text = " ".join(_text(_whole(value, more)).split())
        if text:
            found.append(f"- {' '.join(name.split())}: {text}")
    return found


def is_cut(page: Property) -> bool:
    """Tell whether a property may have more values than the page object holds."""
    return any(_may_be_cut(value) for value in page["properties"].values())


def _may_be_cut(value: Property) -> bool:
    held = value.get(str(value.get("type")))
    return value.get("type") in _LISTS and isinstance(held, list) and len(held) >= INLINE


def _whole(value: Property, more: MoreItems) -> Property:
    """Return a property with all its values, where the page object may have cut them."""
    kind = value["type"]
    if not _may_be_cut(value):
        return value
    return {"type": kind, kind: [item[kind] for item in more(str(value["id"]))]}


def _text(value: Property) -> str:
    kind = str(value.get("type"))
    return ", ".join(_parts(kind, value.get(kind)))


def _parts(kind: str, held: Any) -> Iterator[str]:
    if held is None:
        return
    if kind in ("title", "rich_text"):
        yield plain(held)
    elif kind == "checkbox":
        yield "yes" if held else "no"
    elif kind == "date":
        yield str(held["start"]) + (f" to {held['end']}" if held.get("end") else "")
    elif kind in ("formula", "rollup"):
        inner = str(held.get("type"))
        if inner == "array":
            for item in held["array"]:
                yield from _parts(str(item.get("type")), item.get(str(item.get("type"))))
        elif inner == "boolean":
            yield "yes" if held["boolean"] else "no"
        else:
            yield from _parts(inner, held.get(inner))
    elif kind == "unique_id":
        yield f"{held['prefix']}-{held['number']}" if held.get("prefix") else str(held.get("number"))
    elif isinstance(held, list):
        for item in held:
            yield from _parts("", item)
    elif isinstance(held, Mapping):  # options, people, files, places, verification
        shown = held.get("name") or held.get("state") or held.get("address")
        if shown:
            yield str(shown)
    elif kind != "relation":
        yield str(held)
