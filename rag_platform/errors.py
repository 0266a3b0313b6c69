"""Every error of the platform, as one tree.

    RagError
    ├── ConfigurationError        refuse to start; the message says the cure
    ├── DependencyError           something outside is down or refuses us: retry later, touch no document
    │   ├── DependencyTimeout     it did not answer before the deadline
    │   ├── RateLimited           it asked us to slow down (``retry_after_s``)
    │   ├── QuotaExhausted        it will not answer until somebody pays or raises a limit
    │   ├── RequestRefused        it works and refuses this one request for what it holds
    │   └── IncompleteListing     a source could not be listed to its end
    ├── DocumentError             permanent, about one document: becomes a dead letter
    │   ├── UnsupportedFormat     no parser reads it (or a helper program is missing: ``cure``)
    │   ├── EncryptedDocument     it needs a password that we do not have
    │   ├── CorruptDocument       its parser refuses it
    │   ├── EmptyDocument         it was read and holds no text
    │   ├── LimitExceeded         it needed more time, memory, size or depth than it may have
    │   └── EmbeddingRefused      the embedder accepts its neighbours but not this text
    └── LockTimeout               another run holds this work; nothing was done

The class decides what happens: ``DependencyError`` stops the stage and is retried, ``DocumentError``
costs one dead letter and nothing else, ``ConfigurationError`` ends the process. Anything that is not
a ``RagError`` is a bug and fails loudly. Messages never hold document text, questions or secrets.
"""

from __future__ import annotations


class RagError(Exception):
    """Base of every error that the platform raises on purpose."""


class ConfigurationError(RagError):
    """The installation or its settings cannot work. The message names the cure."""


class DependencyError(RagError):
    """A service outside this process failed.

    Args:
        dependency: its role and name, such as ``embedder:openai``.
        message: what happened, without request or document text.
        retryable: whether trying again by itself can help.
        retry_after_s: how long it asked us to wait, in seconds.
    """

    def __init__(
        self,
        dependency: str,
        message: str,
        *,
        retryable: bool = True,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"{dependency}: {message}")
        self.dependency = dependency
        self.retryable = retryable
        self.retry_after_s = retry_after_s


class DependencyTimeout(DependencyError):
    """No answer before the deadline."""


class RateLimited(DependencyError):
    """Asked to slow down."""


class QuotaExhausted(DependencyError):
    """Out of credit or quota: waiting does not help, an operator does."""

    def __init__(self, dependency: str, message: str) -> None:
        super().__init__(dependency, message, retryable=False)


class RequestRefused(DependencyError):
    """It works, and refuses this one request: says nothing about the next one."""

    def __init__(self, dependency: str, message: str) -> None:
        super().__init__(dependency, message, retryable=False)


class IncompleteListing(DependencyError):
    """A source could not be listed completely, so nothing may be concluded from it."""


class DocumentError(RagError):
    """Permanent, about one document (or one text of it).

    Args:
        message: for a person, without document text.
        cure: what would help, such as an install line.
    """

    code = "document_error"

    def __init__(self, message: str, *, cure: str | None = None) -> None:
        super().__init__(message if cure is None else f"{message} — {cure}")
        self.cure = cure


class UnsupportedFormat(DocumentError):
    code = "unsupported_format"


class EncryptedDocument(DocumentError):
    code = "encrypted"


class CorruptDocument(DocumentError):
    code = "corrupt"


class EmptyDocument(DocumentError):
    code = "no_text"


class LimitExceeded(DocumentError):
    code = "limit_exceeded"


class EmbeddingRefused(DocumentError):
    code = "embedding_refused"


class LockTimeout(RagError):
    """Another run holds the lock. Nothing was done; run again later."""
