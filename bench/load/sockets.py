"""TCP connections of the load generator."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable


async def connect_to(port: int, protocol: Callable[[], asyncio.Protocol], receive_buffer: int | None = None) -> None:
    """Connect a protocol to a port of 127.0.0.1.

    Args:
        receive_buffer: bytes of the socket's receive buffer, so that a client that does not read is felt
            early; None is the system's.

    Raises:
        OSError: nobody listens.
    """
    loop = asyncio.get_running_loop()
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await loop.sock_connect(sock, ("127.0.0.1", port))
    except BaseException:
        sock.close()
        raise
    await loop.create_connection(protocol, sock=sock)
