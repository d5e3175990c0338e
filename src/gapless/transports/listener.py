"""Listening sockets, set up alike for every door."""

from __future__ import annotations

import errno
import os
import socket

from gapless.errors import ConfigError

UNSENT_BYTES = 128 * 1024
"""Bytes that the kernel may hold for one client beyond what is on its way: more shows that the client is
slow. Linux holds 4 MiB by default, for each client that stalls (TCP_NOTSENT_LOWAT, tcp(7))."""


def bind(host: str, port: int, setting: str) -> socket.socket:
    """A TCP socket that listens; connections inherit its options.

    Args:
        port: 0 takes a free one.
        setting: the setting that chose the port, for the error: `port` for `--port`.

    Raises:
        ConfigError: the port is in use, or may not be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's algorithm off only where the protocol is named: else 40 ms an answer
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a peer that vanished is noticed, in the end
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
    try:
        listener.bind((host, port))
        listener.listen(4096)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"port {port} is in use",
                hint=f"stop what uses it, or choose another: --{setting} 0 takes a free one",
            ) from error
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise ConfigError(f"cannot listen on {host}:{port}: {reason}", hint=f"choose another --{setting}") from error
    listener.setblocking(False)
    return listener
