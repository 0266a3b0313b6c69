"""What goes wrong with S3, in the platform's errors."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
from botocore import exceptions as aws
from botocore.parsers import ResponseParserError

from rag_platform.backends.object_refused import ObjectRefused, Refusal
from rag_platform.backends.retry_after import retry_after_s
from rag_platform.errors import DependencyError, DependencyTimeout, RateLimited

_REFUSALS: dict[str, Refusal] = {
    "NoSuchKey": "absent",
    "NoSuchVersion": "absent",
    "NoSuchBucket": "no bucket",
    "AccessDenied": "denied",
    "AllAccessDisabled": "denied",
    "InvalidObjectState": "archived",
    "PreconditionFailed": "replaced",
}
_BY_STATUS: dict[int, Refusal] = {404: "absent", 403: "denied", 412: "replaced"}  # where the body names no code
_THROTTLED = (
    "SlowDown", "Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "TooManyRequests",
    "RequestLimitExceeded", "BandwidthLimitExceeded", "RequestThrottledException", "SlowDownRead", "SlowDownWrite",
)  # fmt: skip
_PASSING = ("InternalError", "ServiceUnavailable", "RequestTimeout", "OperationAborted", "503", "500", "502", "504")
_LOGIN = (
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired",
    "ExpiredTokenException", "UnrecognizedClientException", "InvalidClientTokenId", "NotSignedUp",
)  # fmt: skip
_REGION = ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301")
_NO_LOGIN = (
    aws.NoCredentialsError, aws.PartialCredentialsError, aws.CredentialRetrievalError, aws.ProfileNotFound,
    aws.TokenRetrievalError, aws.SSOError, aws.ConfigParseError,
)  # fmt: skip
_LOGIN_CURE = (
    "check RAG_S3_ACCESS_KEY_ID and RAG_S3_SECRET_ACCESS_KEY, AWS_PROFILE or the role of the machine (temporary keys "
    "expire); RAG_S3_ANONYMOUS=true reads public buckets without a login"
)
BROKEN = (
    aws.BotoCoreError, aws.ClientError, ResponseParserError, aiohttp.ClientError, TimeoutError, OSError,
    asyncio.IncompleteReadError,
)  # fmt: skip
"""What a request raises when it fails."""


def classified(dependency: str, error: BaseException) -> DependencyError | ObjectRefused:
    """Return a failed request as one of ours. Only codes and class names: messages hold keys and addresses."""
    if isinstance(error, aws.ClientError):
        return _answered(dependency, error)
    if isinstance(error, _NO_LOGIN):
        reason = f"no usable login ({type(error).__name__}): {_LOGIN_CURE}"
        return DependencyError(dependency, reason, retryable=False)
    if isinstance(error, aws.ParamValidationError | aws.NoRegionError | aws.InvalidRegionError):
        return DependencyError(dependency, f"the SDK refuses the request ({type(error).__name__})", retryable=False)
    return DependencyError(dependency, f"no usable answer ({type(error).__name__})")


def _answered(dependency: str, error: Any) -> DependencyError | ObjectRefused:
    code = str(error.response.get("Error", {}).get("Code", ""))
    meta = error.response.get("ResponseMetadata", {})
    status = int(meta.get("HTTPStatusCode") or 0)
    if code in _THROTTLED or status == 429:
        wait = retry_after_s({str(k).lower(): str(v) for k, v in meta.get("HTTPHeaders", {}).items()})
        return RateLimited(dependency, f"it asks to slow down ({code or status})", retry_after_s=wait)
    if code in _LOGIN:
        return DependencyError(dependency, f"the login is refused ({code}): {_LOGIN_CURE}", retryable=False)
    if code == "RequestTimeTooSkewed":
        return DependencyError(dependency, f"the clock of this machine is wrong ({code}): set it", retryable=False)
    if code in _REGION or status == 301:
        cure = "set RAG_S3_REGION or RAG_S3_ENDPOINT_URL to the bucket's"
        return DependencyError(dependency, f"the bucket lives elsewhere ({code}): {cure}", retryable=False)
    if code in _REFUSALS:
        return ObjectRefused(_REFUSALS[code], code)
    if code in _PASSING or status >= 500:
        return DependencyError(dependency, f"it fails ({code or status})")
    if status in _BY_STATUS:
        return ObjectRefused(_BY_STATUS[status], code or str(status))
    return DependencyError(dependency, f"it refuses the request ({code or status})", retryable=False)


def refused(dependency: str, refusal: ObjectRefused, *, action: str) -> DependencyError:
    """Return a refusal that concerns everything as an error with its cure.

    Args:
        action: the permission that the request needs, such as ``s3:ListBucket``.
    """
    if refusal.what == "denied":
        reason = f"access is denied: grant {action} to the login that is used"
    elif refusal.what == "no bucket":
        reason = "its bucket is not there: check the address, the account and the endpoint"
    else:
        reason = str(refusal)
    return DependencyError(dependency, reason, retryable=False)


def late(dependency: str, seconds: float) -> DependencyTimeout:
    """Return the error for a deadline that has passed."""
    return DependencyTimeout(dependency, f"no answer within {seconds:g} s")
