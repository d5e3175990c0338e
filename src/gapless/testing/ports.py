"""Ports for servers that are killed and come back on the same address."""

from __future__ import annotations

import errno
import random
import re
import socket

# Below the range from which the kernel takes ports for outgoing connections (32768 and up on Linux,
# 49152 on macOS). A port from that range is not safe for a server that goes away and comes back: any
# outgoing connection may take it meanwhile, and a client that keeps calling a dead loopback port of that
# range now and then connects to itself (TCP's simultaneous open).
_RANGE = range(20_000, 32_000)
_ATTEMPTS = 200

_CONFLICT = re.compile(r"address (?:is )?already in use|port\b.*\bin use|EADDRINUSE", re.IGNORECASE)

# Of its own, so that a test that seeds `random` does not make parallel tests draw the same ports.
_random = random.SystemRandom()


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port on which nobody listens now, outside of the range of outgoing connections.

    Another process may still take it before the caller does: a server that is started on it has to be
    tried again with another one when it reports a conflict (`is_port_conflict`); the helpers of this
    package do.

    Raises:
        OSError: no free port was found.
    """
    for _ in range(_ATTEMPTS):
        port = _random.choice(_RANGE)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            # As servers do: a port with connections in TIME_WAIT only is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                    raise
                continue
        return port
    raise OSError(errno.EADDRINUSE, f"no free port among {_ATTEMPTS} tried on {host}")


def is_port_conflict(output: str) -> bool:
    """Whether a server's output says that a port it wanted is in use."""
    return _CONFLICT.search(output) is not None
