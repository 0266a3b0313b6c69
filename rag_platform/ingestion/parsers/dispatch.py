"""Bytes in, parsed document out, within this process: decide, load the parser, run it, assemble.

The worker runs this inside its jail, ``ParserPool`` runs it directly for light formats, and mails run it
on their attachments.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import ModuleType

from rag_platform.errors import ConfigurationError, CorruptDocument, LimitExceeded, RagError
from rag_platform.ingestion.parsers.assemble import assemble
from rag_platform.ingestion.parsers.base import Limits, RawDocument
from rag_platform.ingestion.parsers.formats import PACKAGE, by_suffix
from rag_platform.ingestion.parsers.sniff import decide
from rag_platform.records import ParsedDocument


def load(suffix: str, extra: Mapping[str, str] | None = None) -> ModuleType:
    """Import the parser of ``suffix``.

    Raises:
        ConfigurationError: a library that it needs is not installed.
    """
    name = (extra or {}).get(suffix) or f"{PACKAGE}.{by_suffix()[suffix].name}"
    try:
        return importlib.import_module(name)
    except ImportError as e:
        missing = getattr(e, "name", None) or type(e).__name__
        raise ConfigurationError(
            f"the parser of {suffix} files cannot be loaded: {missing} is missing; reinstall rag-platform"
        ) from e


def read(module: ModuleType, data: bytes, suffix: str, limits: Limits) -> RawDocument:
    """Run one parser; whatever it raises becomes a ``DocumentError``."""
    try:
        raw: RawDocument = module.parse(data, suffix, limits)
    except RagError:
        raise
    except MemoryError as e:
        raise LimitExceeded(f"needed more than {limits.memory_mb} MB of memory") from e
    except RecursionError as e:
        raise LimitExceeded("is nested too deeply") from e
    except Exception as e:
        raise CorruptDocument(f"its parser refuses it ({type(e).__name__})") from e
    return raw


def parse_here(data: bytes, suffix: str, limits: Limits, extra: Mapping[str, str] | None = None) -> ParsedDocument:
    """Parse in this process, already knowing the suffix.

    Raises:
        DocumentError: the document cannot be read.
        ConfigurationError: its parser cannot be loaded.
    """
    return assemble(read(load(suffix, extra), data, suffix, limits), limits)


def read_nested(data: bytes, name: str, limits: Limits) -> RawDocument:
    """Read a document that lies inside another; the depth that is left is in ``limits``.

    Raises:
        DocumentError: it cannot be read, or lies too deep.
        ConfigurationError: its parser, or OCR, cannot be loaded.
    """
    if limits.max_attachment_depth <= 0:
        raise LimitExceeded("lies too many documents deep")
    suffix = decide(data, name, limits)
    return read(load(suffix), data, suffix, limits)
