"""Confluence's storage format (XHTML with macros) to HTML that holds all its text.

An HTML parser drops what the format says in elements and attributes of its own: code in CDATA, the
titles of panels, tasks, mentions, dates, links without a body. Here each of them becomes the nearest
element of HTML. What a macro computes when the page is shown (a table of contents, a list of child
pages, the content of an included page) is not in the format and is left out.
"""

from __future__ import annotations

import html
import html.entities
import re
from typing import Any

from lxml import etree

from rag_platform.backends.sources.confluence_macros import (
    AC,
    NAMESPACES,
    RI,
    UserName,
    become,
    drop,
    is_macro,
    macro,
    reference,
    rename,
    task,
    within,
)

_ROOT = "<root " + " ".join(f'xmlns:{prefix}="{uri}"' for prefix, uri in NAMESPACES.items()) + ">"
_CDATA = re.compile(r"(<!\[CDATA\[.*?\]\]>)", re.DOTALL)
_ENTITY = re.compile(r"&([A-Za-z][A-Za-z0-9]{1,31});")
_XML_ENTITIES = ("amp", "lt", "gt", "quot", "apos")
_ILLEGAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_PARTS = ("parameter", "rich-text-body", "plain-text-body")
_SHORTCODE = re.compile(r":[\w+-]+:")

_DROPPED = frozenset(
    ("placeholder", "task-id", "task-uuid", "adf-attribute", "adf-mark", "parameter", "plain-text-body")
)
_BLOCKS = frozenset(
    ("layout", "layout-section", "layout-cell", "adf-extension", "adf-node", "adf-content", "adf-fallback")
)


def html_document(title: str, markup: str) -> bytes:
    """Return a whole page in UTF-8, its title as its first heading."""
    shown = html.escape(title, quote=False)
    return (
        f'<!DOCTYPE html>\n<html><head><meta charset="utf-8"><title>{shown}</title></head>'
        f"<body><h1>{shown}</h1>\n{markup}\n</body></html>\n"
    ).encode("utf-8", "replace")


def storage_to_html(markup: str, user_name: UserName) -> str:
    """Return the HTML of a page's body; the body as it is when it is no XML at all."""
    root = _tree(markup)
    if root is None:
        return markup
    # Children come before their parents, so that a macro finds its inside converted; its own parts
    # (parameters, bodies, ri:… references) are left for it.
    for node in reversed(list(root.iter())):
        if isinstance(node.tag, str) and node is not root:
            _convert(node, user_name)
    etree.cleanup_namespaces(root)
    inside = etree.tostring(root, method="html", encoding="unicode")
    return str(inside)[str(inside).index(">") + 1 :].removesuffix("</root>")


def _tree(markup: str) -> Any:
    pieces = _CDATA.split(_ILLEGAL.sub("", markup))
    # XML knows five of HTML's entities; in CDATA they are text.
    pieces[::2] = [_ENTITY.sub(_resolved, piece) for piece in pieces[::2]]
    text = f"{_ROOT}{''.join(pieces)}</root>".encode("utf-8", "replace")
    for recover in (False, True):
        parser = etree.XMLParser(
            resolve_entities=False,
            no_network=True,
            load_dtd=False,
            remove_comments=True,
            remove_pis=True,
            recover=recover,
        )
        try:
            root = etree.fromstring(text, parser)
        except etree.XMLSyntaxError:
            continue
        if root is not None and any("depth" in entry.message for entry in parser.error_log):
            return None  # cut where it is nested too deeply; the HTML parser has a way of reading that
        return root
    return None


def _resolved(match: re.Match[str]) -> str:
    name = match[1]
    found = html.entities.html5.get(f"{name};")
    return match[0] if name in _XML_ENTITIES or found is None else html.escape(found)


def _convert(node: Any, user_name: UserName) -> None:
    tag = str(node.tag)
    name = tag.rsplit("}", 1)[-1]
    if tag.startswith(RI):
        return
    if not tag.startswith("{"):
        if name == "time" and node.get("datetime") and not (node.text or "").strip():
            node.text = node.get("datetime")
        for key in [k for k in node.attrib if k.startswith("{")]:
            del node.attrib[key]
        drop(*(child for child in node if within(child, RI)))
    elif name in _PARTS and is_macro(node.getparent()):
        return
    elif is_macro(node):
        macro(node, (node.get(f"{AC}name") or "").lower())
    elif name in ("link", "image"):
        reference(node, name, user_name)
    elif name == "task":
        task(node)
    elif name == "emoticon":
        shown = node.get(f"{AC}emoji-fallback") or ""
        become(node, "span", "" if _SHORTCODE.fullmatch(shown) else shown)
    elif name in ("task-body", "task-status", "link-body", "plain-text-link-body", "caption", "adf-fallback"):
        return  # for the element around it
    elif name in _DROPPED:
        drop(node)
    elif name == "task-list":
        rename(node, "ul")
    elif name == "adf-extension" and (fallback := node.find(f"{AC}adf-fallback")) is not None:
        drop(*(child for child in node if child is not fallback))
        rename(fallback, "div")
        rename(node, "div")
    else:
        rename(node, "div" if name in _BLOCKS else "span")
        drop(*(child for child in node if within(child, RI)))
