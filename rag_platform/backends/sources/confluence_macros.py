"""Confluence's own elements, one by one: macros, links, images and tasks become elements of HTML, in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lxml import etree

UserName = Callable[[str, str], str]
"""Gives the name of a user by (``account-id``, ``userkey`` or ``username``, its value)."""

NAMESPACES = {prefix: f"http://atlassian.com/{prefix}" for prefix in ("ac", "ri", "at")}
AC, RI = f"{{{NAMESPACES['ac']}}}", f"{{{NAMESPACES['ri']}}}"

_COMPUTED = frozenset(
    [
        "toc",
        "toc-zone-marker",
        "children",
        "pagetree",
        "pagetreesearch",
        "recently-updated",
        "contributors",
        "contributors-summary",
        "livesearch",
        "blog-posts",
        "contentbylabel",
        "gallery",
        "attachments",
        "change-history",
        "navmap",
        "anchor",
        "profile-picture",
        "spaces-list",
        "search",
        "popular-labels",
        "related-labels",
        "tasks-report-macro",
        "detailssummary",
        "favpages",
        "create-from-template",
        "index",
    ]
)
"""Macros whose content is made when the page is shown, or that have none."""
_FORMULAS = frozenset(("mathblock", "mathinline", "latex", "easy-math-block", "easy-math-inline"))
_LABELS = {"info": "Info", "note": "Note", "tip": "Tip", "warning": "Warning"}


def macro(node: Any, name: str) -> None:
    parameters = {(p.get(f"{AC}name") or "").lower(): p for p in node.findall(f"{AC}parameter")}
    plain, rich = node.find(f"{AC}plain-text-body"), node.find(f"{AC}rich-text-body")
    title = _parameter(parameters, "title")
    if name in _COMPUTED:
        drop(node)
    elif name in (
        "status",
        "jira",
        "include",
        "excerpt-include",
        "view-file",
        "viewpdf",
        "viewdoc",
        "viewxls",
        "viewppt",
    ):
        shown = title or _parameter(parameters, "key") or _target(node) or " ".join(_text(node).split())
        block = name in ("status", "jira")
        become(node, "span" if block else "p", shown if block or not shown else f"[{shown}]")
    elif name in _FORMULAS:
        become(node, "code" if "inline" in name else "pre", _text(plain) or _parameter(parameters, "body"))
    elif plain is not None and rich is None:
        code = _text(plain)
        become(node, "div", "")
        if title:
            etree.SubElement(node, "p").text = title
        etree.SubElement(node, "pre").text = code
    elif rich is not None:
        drop(*(child for child in node if child is not rich))
        heading = title or _LABELS.get(name, "")
        rename(rich, "div")
        rename(node, "div")
        if heading:
            label = etree.Element("p")
            etree.SubElement(label, "strong").text = heading
            node.insert(0, label)
    else:  # a macro without a body: what it is called is all that a reader would look for
        become(node, "p", _parameter(parameters, "diagramname") or title)


def reference(node: Any, name: str, user_name: UserName) -> None:
    body = next((b for b in node if b.tag in (f"{AC}link-body", f"{AC}plain-text-link-body")), None)
    caption = node.find(f"{AC}caption")
    if name == "image":
        shown = node.get(f"{AC}alt") or node.get(f"{AC}title") or _target(node)
        if caption is None:
            become(node, "span", f"[{shown}]" if shown else "")
        else:
            drop(*(child for child in node if child is not caption))
            rename(caption, "figcaption")
            rename(node, "figure")
    elif body is not None and "".join(body.itertext()).strip():
        drop(*(child for child in node if child is not body))
        rename(body, "span")
        rename(node, "a")
    else:
        user = node.find(f"{RI}user")
        if user is not None:
            keys = [k for k in ("account-id", "userkey", "username") if user.get(f"{RI}{k}")]
            shown = "@" + (user_name(keys[0], str(user.get(f"{RI}{keys[0]}"))) if keys else "somebody")
        else:
            shown = _target(node) or node.get(f"{AC}anchor") or ""
        become(node, "a", shown)


def task(node: Any) -> None:
    done = (node.findtext(f"{AC}task-status") or "").strip() == "complete"
    body = node.find(f"{AC}task-body")
    drop(*(child for child in node if child is not body))
    rename(node, "li")
    node.text = "[x] " if done else "[ ] "
    if body is not None:
        rename(body, "span")


def _target(node: Any) -> str:
    """Return the title or file name that an element's ``ri:…`` refers to."""
    for child in node.iter():
        if within(child, RI):
            for key in ("content-title", "filename", "space-key"):
                if value := child.get(f"{RI}{key}"):
                    return str(value)
    return ""


def _parameter(parameters: dict[str, Any], name: str) -> str:
    return _text(parameters.get(name)).strip()


def _text(node: Any) -> str:
    return "" if node is None else "".join(node.itertext())


def is_macro(node: Any) -> bool:
    return node is not None and node.tag in (f"{AC}structured-macro", f"{AC}macro")


def within(node: Any, namespace: str) -> bool:
    return isinstance(node.tag, str) and node.tag.startswith(namespace)


def rename(node: Any, tag: str) -> None:
    node.tag = tag
    node.attrib.clear()


def become(node: Any, tag: str, text: str) -> None:
    tail = node.tail
    node.clear()
    node.tag, node.text, node.tail = tag, text, tail


def drop(*nodes: Any) -> None:
    """Remove elements and keep the text that follows them."""
    for node in nodes:
        parent, before = node.getparent(), node.getprevious()
        if node.tail:
            if before is not None:
                before.tail = (before.tail or "") + node.tail
            else:
                parent.text = (parent.text or "") + node.tail
        parent.remove(node)
