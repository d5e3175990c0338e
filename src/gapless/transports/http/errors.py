"""Errors that only HTTP knows."""

from __future__ import annotations

from gapless.errors import InvalidRequest


class NotFound(InvalidRequest):
    """No such path."""

    code = "not_found"
    http_status = 404


class WrongHost(InvalidRequest):
    """The request names a host that this gateway is not (RFC 9110 §15.5.20)."""

    code = "wrong_host"
    http_status = 421


class MethodNotAllowed(InvalidRequest):
    """The path does not take this method (RFC 9110 §15.5.6)."""

    code = "method_not_allowed"
    http_status = 405


class UnsupportedMediaType(InvalidRequest):
    """The body is of a type that the door does not take (RFC 9110 §15.5.16)."""

    code = "unsupported_media_type"
    http_status = 415
