"""The Socket.IO transport: python-socketio keeps the protocol; delivery and recovery are ours."""

from gapless.transports.socketio.door import SocketIoDoor, SocketIoOptions

__all__ = ["SocketIoDoor", "SocketIoOptions"]
