"""XML read safely: no external entity, no DTD, no network, no expansion, no huge text node."""

from __future__ import annotations

from typing import Any, Final

from lxml import etree

from rag_platform.errors import CorruptDocument

VERSION: Final = 1


def parse_xml(data: bytes, *, recover: bool = False) -> Any:
    """Return the root element; entities stay unexpanded.

    Args:
        recover: build what can be built from damaged XML.

    Raises:
        CorruptDocument: it is not XML, or refused for its size or depth.
    """
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, recover=recover,
        remove_comments=True, remove_pis=True,
    )  # fmt: skip
    try:
        root = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError) as e:
        raise CorruptDocument("its XML is damaged") from e
    if root is None:
        raise CorruptDocument("its XML is damaged")
    return root


def local(node: Any) -> str:
    """Return the element's name without namespace; empty for entities and the like."""
    tag = node.tag
    return tag.rsplit("}", 1)[-1] if isinstance(tag, str) else ""


def words(node: Any) -> str:
    """Return all text below ``node``, white space folded."""
    return " ".join("".join(node.itertext()).split())
