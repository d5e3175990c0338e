"""Errors with a wire code, the data behind them and how to mend them.

The code decides what a client does next (`retryable`), never the text. Every door turns
a `GaplessError` into its own form: an HTTP problem body, a Socket.IO acknowledgement
`{ok: false, error}`, an MQTT reason code.
"""

from __future__ import annotations

from typing import Any, ClassVar


class GaplessError(Exception):
    """Base of all errors of this package.

    Attributes:
        code: stable wire code, in snake_case.
        http_status: the status with which the HTTP doors answer.
        retryable: whether the same request may succeed later, unchanged.
        hint: what to do about it, for people; may be empty.
        details: the figures behind the error (`size`, `limit`, …), JSON-ready.
    """

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "", **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details
        if hint:
            self.add_note(f"mend it: {hint}")  # a traceback shows it

    @property
    def explained(self) -> str:
        """Message and hint in one line."""
        return f"{self.message}; {self.hint}" if self.hint else self.message

    def to_wire(self) -> dict[str, Any]:
        """The body that every door sends: `{code, message, retryable, hint?, details?}`."""
        body: dict[str, Any] = {"code": self.code, "message": self.message, "retryable": self.retryable}
        if self.hint:
            body["hint"] = self.hint
        if self.details:
            body["details"] = self.details
        return body


class InvalidRequest(GaplessError):
    """The request is not of the form this door takes."""

    code = "invalid_request"
    http_status = 400


class InvalidPayload(InvalidRequest):
    """The payload is not what it says it is: malformed JSON, invalid UTF-8, too deep."""

    code = "invalid_payload"


class TooComplex(InvalidPayload):
    """JSON of too many values, or nested too deep; carries `limit`."""


class PayloadTooLarge(InvalidRequest):
    """The payload is over the limit; carries `size` and `limit` in bytes."""

    code = "payload_too_large"
    http_status = 413


class InvalidTopic(InvalidRequest):
    """The topic name or filter breaks MQTT's rules or a limit (MQTT 5 §4.7)."""

    code = "invalid_topic"


class UnknownTopic(InvalidRequest):
    """The topic, or event type, is not in the map, and the map admits no others."""

    code = "unknown_topic"


class UnknownRoom(InvalidRequest):
    """The room fits no room of the topic map."""

    code = "unknown_room"
    http_status = 404


class InvalidPosition(InvalidRequest):
    """The position is not of the form `epoch:offset`, or lies in the future."""

    code = "invalid_position"


class Unauthorized(GaplessError):
    """The credentials are absent or wrong."""

    code = "unauthorized"
    http_status = 401


class Forbidden(GaplessError):
    """The gate does not let this client do that."""

    code = "forbidden"
    http_status = 403


class NotDecided(Forbidden):
    """The application decides this, and must be asked first (`Gate.prepare`)."""


class ConfigError(GaplessError):
    """The configuration is wrong; the message names the row and the hint the fix."""

    code = "invalid_config"


class LogError(GaplessError):
    """Base of what the event log can answer."""

    code = "log_error"
    http_status = 503


class LogUnavailable(LogError):
    """The log cannot take writes now (disk full, closing). Nothing of the call was accepted."""

    code = "log_unavailable"
    retryable = True


class LogCorrupt(LogError):
    """The log's file is damaged or not ours. It is refused, never emptied."""

    code = "log_corrupt"


class RateLimited(GaplessError):
    """Too much at once, or too many: carries `limit_of` (connection, user, address), and `retry_after` in seconds."""

    code = "rate_limited"
    http_status = 429
    retryable = True


class QuotaExceeded(GaplessError):
    """What is kept until somebody removes it has reached its bound (`details.limit`)."""

    code = "quota_exceeded"
    http_status = 507


class Overloaded(GaplessError):
    """A bounded queue is full; try again later."""

    code = "overloaded"
    http_status = 503
    retryable = True
