"""Errors of the hybrid client: its own codes, and the gateway's, as exceptions that can be caught by kind."""

from __future__ import annotations

from collections.abc import Iterator

from gapless.client.model import ConnectionLost, Refused
from gapless.errors import GaplessError, Unauthorized


class NetworkError(GaplessError):
    """The gateway could not be reached, or the connection broke."""

    code = "network"
    http_status = 503
    retryable = True


class NoAnswer(GaplessError):
    """No answer came within the bound."""

    code = "timeout"
    http_status = 503
    retryable = True


class NotAGateway(GaplessError):
    """Something else answered at the URL."""

    code = "not_a_gateway"
    http_status = 502
    retryable = True


class NoTransport(GaplessError):
    """None of the ladder's transports can be used here, with these rooms."""

    code = "no_transport"
    http_status = 503
    retryable = True


class TokenFailed(GaplessError):
    """The application's `token` failed."""

    code = "token_failed"
    http_status = 401
    retryable = True


class StorageFailed(GaplessError):
    """Storage refuses: full, read-only, or damaged. The client goes on in memory."""

    code = "storage_failed"


class StoreInUse(GaplessError):
    """Another client has the store open: with two of them on one cursor, each would miss what the other heard."""

    code = "store_in_use"


class OutboxFull(GaplessError):
    """The outbox's bound is reached; wait for answers."""

    code = "outbox_full"


class Offline(GaplessError):
    """An ephemeral publication without a connection."""

    code = "offline"
    http_status = 503
    retryable = True


class Closed(GaplessError):
    """The client was closed."""

    code = "closed"


def _kinds(base: type[GaplessError]) -> Iterator[type[GaplessError]]:
    for kind in base.__subclasses__():
        yield kind
        yield from _kinds(kind)


def error_of_code(
    code: str, message: str, *, retryable: bool = False, hint: str = "", **details: object
) -> GaplessError:
    """The exception of a wire code; one of its own kind for a code that this version does not know."""
    kind = next((each for each in _kinds(GaplessError) if each.code == code and each.__module__ in _HOMES), None)
    if kind is None:
        kind = type("UnknownError", (GaplessError,), {"code": code, "retryable": retryable})
    return kind(message, hint=hint, **details)


_HOMES = ("gapless.errors", __name__)


def cause_of(error: BaseException) -> GaplessError:
    """What a connection raised, as the error of its code."""
    match error:
        case Refused() | ConnectionLost():
            code = error.details.get("code")
            if not isinstance(code, str):
                return (NetworkError if isinstance(error, ConnectionLost) else _refusal(error))(
                    error.message, hint=error.hint
                )
            details = error.details.get("details")
            kept = dict(details) if isinstance(details, dict) else {}
            return error_of_code(code, error.message, retryable=error.retryable, hint=error.hint, **kept)
        case GaplessError():
            return error
    return NetworkError(f"{type(error).__name__}: {error}")


def _refusal(error: Refused) -> type[GaplessError]:
    """A refusal without a code: of MQTT's credentials, else of something that is no gateway."""
    return Unauthorized if error.details.get("reason_code") in (0x86, 0x87) else NotAGateway
