"""Settings of the HTTP doors."""

from __future__ import annotations

import msgspec


class HttpOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds and habits of REST, long poll, SSE and the pages.

    Attributes:
        body_bytes: largest request body, in bytes; a larger one is answered 413 before it is read.
        bodies_bytes: most bytes of all request bodies held at one moment; above it, 503.
        max_rooms: most rooms of one poll, stream or connect request.
        poll_limit: events of one poll's answer where the client names no `limit`.
        poll_max_limit: most events of one poll's answer; a larger `limit` is taken as this.
        poll_bytes: a poll's answer takes no further event once it holds this many bytes.
        poll_max_wait: longest wait of a poll, in seconds; a longer one is taken as this.
        max_polls: most polls that wait at one moment; above it, 503.
        max_streams: most SSE streams open at one moment; above it, 503.
        stream_bytes: bytes kept for one SSE stream whose socket is full, before it is fed from the log. Besides
            them its connection holds up to two writes of this size.
        stream_events: events kept for one SSE stream, likewise.
        stream_heartbeat: seconds of silence on an SSE stream before a sign of life is sent.
        stream_retry: seconds that an EventSource is told to wait before it connects again.
        mqtt_keepalive: keep-alive in seconds that `/api/connect` recommends to MQTT clients.
        origins: origins of other sites whose pages may use this gateway by any door, such as `https://app.example.com`;
            `*` is all, `null` is pages without an origin. The own origin always may, and what is no browser.
        hosts: names by which requests may call this gateway, `*.example.com` for all below one; addresses and
            `localhost` always may. Empty: any name, but on loopback without authentication only these.
        trusted_proxies: addresses and networks of proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
        body_timeout: seconds within which a request's body must come, and one more for each 16 KiB of it.
        public_url: where clients reach this port, such as `https://events.example.com`; None takes
            what the request says.
        compression: whether clients that offer it get WebSocket messages compressed (RFC 7692). An event is compressed
            once for all; what clients send costs a decompression each.
        pages: whether to serve the page at `/` where a person watches and publishes events.
    """

    body_bytes: int = 8 << 20
    bodies_bytes: int = 64 << 20
    max_rooms: int = 256
    poll_limit: int = 100
    poll_max_limit: int = 1000
    poll_bytes: int = 1 << 20
    poll_max_wait: float = 60.0
    max_polls: int = 20_000
    max_streams: int = 20_000
    stream_bytes: int = 64 << 10
    stream_events: int = 1000
    stream_heartbeat: float = 15.0
    stream_retry: float = 2.0
    mqtt_keepalive: int = 60
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    compression: bool = False
    trusted_proxies: tuple[str, ...] = ()
    body_timeout: float = 10.0
    public_url: str | None = None
    pages: bool = True
