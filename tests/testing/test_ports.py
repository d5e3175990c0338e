from __future__ import annotations

import socket

import pytest

from gapless.testing import free_port
from gapless.testing.ports import is_port_conflict


def test_a_free_port_can_be_bound_and_is_not_of_the_outgoing_range() -> None:
    port = free_port()
    assert 1024 < port < 32768
    with socket.socket() as server:
        server.bind(("127.0.0.1", port))


def test_a_taken_port_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as server:
        taken = free_port()
        server.bind(("127.0.0.1", taken))
        server.listen()
        other = free_port()
        draws = iter([taken, taken, other])
        monkeypatch.setattr("gapless.testing.ports._random.choice", lambda _: next(draws))
        assert free_port() == other


def test_no_free_port_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as server:
        taken = free_port()
        server.bind(("127.0.0.1", taken))
        server.listen()
        monkeypatch.setattr("gapless.testing.ports._random.choice", lambda _: taken)
        with pytest.raises(OSError, match="no free port"):
            free_port()


@pytest.mark.parametrize(
    "output",
    [
        "1700000000: Error: Address already in use",
        "OSError: [Errno 98] error while attempting to bind on address: address already in use",
        "gapless: port 8080 is in use (Address already in use)",
        "Error: listen EADDRINUSE",
    ],
)
def test_a_conflict_is_recognised(output: str) -> None:
    assert is_port_conflict(output)


def test_other_errors_are_no_conflict() -> None:
    assert not is_port_conflict("permission denied on port 80; the log is corrupt")
