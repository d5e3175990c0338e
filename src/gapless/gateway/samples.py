"""What the parts of a gateway count, as figures of `/metrics`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gapless.transports.http import Sample


def socketio_samples(counts: Mapping[str, int]) -> Iterator[Sample]:
    """The figures of the Socket.IO door."""
    labels = {"transport": "socketio"}
    yield Sample("gapless_connections", "gauge", "Clients connected now.", counts["connections"], labels)
    yield Sample(
        "gapless_readers_behind", "gauge", "Connected readers being fed from the log now.", counts["behind"], labels
    )
    for outcome in ("recovered", "not_recovered"):
        yield Sample(
            "gapless_socketio_returns",
            "counter",
            "Socket.IO clients that came back with a pid.",
            counts[outcome],
            {"outcome": outcome},
        )
    yield Sample(
        "gapless_connections_refused", "counter", "Connections refused by the gate.", counts["refused"], labels
    )
