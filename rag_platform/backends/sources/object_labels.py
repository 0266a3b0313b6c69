"""Tenant, access list and tags of a document from labels on its object: S3 object tags, GCS custom metadata.

    rag-acl     groups that may read it, separated by spaces (S3 allows no comma in a value) or commas
    rag-tags    tags, in the same way
    rag-tenant  its tenant; one of the source's option ``tenants``

A label that is missing leaves what the source says. What cannot be understood closes the document: nobody but
the operator finds it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rag_platform.errors import ConfigurationError
from rag_platform.records import SourceSpec

ACL, TAGS, TENANT = "rag-acl", "rag-tags", "rag-tenant"
_SEPARATORS = re.compile(r"[\s,]+")
_OURS = re.compile(r"rag[-_.:/ ]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Overrides:
    """What an object's labels say; None inherits from the source. ``trouble`` says what was not understood."""

    acl: tuple[str, ...] | None = None
    tags: tuple[str, ...] | None = None
    tenant: str | None = None
    trouble: str | None = None


UNREADABLE = Overrides(acl=(), trouble="its labels may not be read")


@dataclass(frozen=True, slots=True)
class Labels:
    """How a source reads labels.

    Args:
        tenants: the tenants that a label may name.
    """

    tenants: tuple[str, ...] = ()

    def read(self, labels: Mapping[str, str]) -> Overrides:
        """Return what these labels say."""
        strange = sorted(k for k in labels if _OURS.match(k) and k not in (ACL, TAGS, TENANT))
        tenant = labels.get(TENANT)
        tags = None if TAGS not in labels else tuple(_words([labels[TAGS]]))
        if strange:
            return Overrides((), tags, None, f"the label {strange[0]!r} is none of {ACL}, {TAGS}, {TENANT}")
        if tenant is not None and tenant not in self.tenants:
            return Overrides((), tags, None, "its tenant is none of the source's option tenants")
        return Overrides(None if ACL not in labels else tuple(_words([labels[ACL]])), tags, tenant)


def labels_of(spec: SourceSpec, kind: str) -> Labels | None:
    """Return how a source reads labels, None when it does not.

    Args:
        kind: what the connector calls them, such as ``s3-tags``.

    Raises:
        ConfigurationError: another kind, or ``tenants`` that are no list of names.
    """
    where, chosen = f"source {spec.name!r}", spec.options.get("acl_from")
    tenants = spec.options.get("tenants", ())
    if not isinstance(tenants, list | tuple) or not all(isinstance(t, str) and t.strip() for t in tenants):
        raise ConfigurationError(f"{where}: option tenants must be a list of names, such as tenants: [acme, globex]")
    if chosen is None and tenants:
        raise ConfigurationError(f"{where}: option tenants needs acl_from: {kind}")
    if chosen is None:
        return None
    if chosen != kind:
        raise ConfigurationError(f"{where}: option acl_from is {chosen!r}; here it can be {kind}")
    return Labels(tuple(tenants))


def _words(values: Iterable[str]) -> Iterable[str]:
    return dict.fromkeys(word for value in values for word in _SEPARATORS.split(value) if word)
