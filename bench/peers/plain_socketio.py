"""python-socketio as its documentation says: AsyncServer, rooms and `emit`, on uvicorn and uvloop.

python -m bench.peers.plain_socketio
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from typing import Any

import socketio
import uvicorn

_META = {
    "id": "019b76da-a800-7000-8000-000000000001",
    "topic": "crm/leads/123/updated",
    "time": "2026-01-01T00:00:00.125Z",
    "userId": None,
}
_POSITION = "k3x9a2bq:1000000"

server = socketio.AsyncServer(async_mode="asgi")


async def subscribe(sid: str, document: dict[str, Any]) -> dict[str, Any]:
    for room in document["rooms"]:
        await server.enter_room(sid, room)
    return {"ok": True}


async def publish(_sid: str, document: dict[str, Any]) -> dict[str, Any]:
    # The same arguments as Gapless sends, so that both write the same bytes.
    await server.emit(
        document["type"], (document["data"], _META, _POSITION), room=f"lead:{document['topic'].split('/')[2]}"
    )
    return {"ok": True}


server.on("subscribe", subscribe)
server.on("publish", publish)


async def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    config = uvicorn.Config(socketio.ASGIApp(server), log_level="warning", access_log=False, lifespan="off")
    print(json.dumps({"http": listener.getsockname()[1], "pid": os.getpid()}), flush=True)
    await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(main())
    else:
        uvloop.run(main())
