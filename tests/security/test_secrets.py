"""A token that nobody but its owner may see: shown at every door, right and wrong, and then looked for everywhere."""

from __future__ import annotations

import asyncio
import logging
import time

import jwt
import msgspec
import pytest

from gapless.auth import AuthOptions, Credentials
from gapless.mqtt import Connect, ProtocolVersion, encode
from tests.security.site import http, running, upgrade, wire

SECRET = "a-marked-secret-4c61757269-of-32-bytes"
WRONG = "eyJhbGciOiJIUzI1NiJ9.marked-wrong-token-9f.c2ln"
KEY = "gpl_marked-wrong-key-77"
OURS = ("gapless", "uvicorn", "engineio", "socketio", "asyncio")  # the client that asks tells its URLs
MARKS = ("4c61757269", "marked-wrong-token-9f", "marked-wrong-key-77")


async def test_no_token_and_no_secret_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    seen: list[str] = []
    async with running(auth=AuthOptions(secret=SECRET)) as gateway, http(gateway) as client:
        for token in (SECRET, WRONG, KEY):
            bearer = {"authorization": f"Bearer {token}"}
            for path in ("/api/events?rooms=org:global", "/api/stream?rooms=org:global", "/api/connect", "/metrics"):
                answer = await client.get(path, headers=bearer)
                assert answer.status_code == 401, path
                seen.append(answer.text + str(answer.headers))
            answer = await client.get(f"/api/stream?rooms=org:global&token={token}")
            assert answer.status_code == 401
            seen.append(answer.text)
            answer = await client.post("/api/events", headers=bearer, json={"topic": "crm/leads/1/created"})
            seen.append(answer.text)
            answer = await client.get("/api/events?rooms=org:global", headers={"authorization": f"Basic {token}"})
            seen.append(answer.text)
            for version in (ProtocolVersion.V5, ProtocolVersion.V311):
                async with wire(gateway.mqtt_url) as connection:
                    packet = Connect("c", version, username="u", password=token.encode())
                    connection.send(encode(packet, version))
                    seen.append((await connection.ended()).decode("latin-1"))
            async with wire(gateway.http_url) as connection:
                connection.send(upgrade("/socket.io/?EIO=4&transport=websocket"))
                await connection.head()
                message = b"40" + msgspec.json.encode({"token": token})
                connection.send(bytes([0x81, 0x80 | len(message), 0, 0, 0, 0]) + message)
                received = b""
                while b"unauthorized" not in received:
                    received += await connection.reader.read(4096)
                seen.append(received.decode("latin-1"))
        now = int(time.time())
        claims = {"sub": "7", "roles": ["MANAGER"], "iat": now, "exp": now + 600}
        right = jwt.encode(claims, SECRET, algorithm="HS256")
        marks = (*MARKS, right.rsplit(".", 1)[1])
        for path in ("/api/events?rooms=org:global", "/api/connect"):
            answer = await client.get(path, headers={"authorization": f"Bearer {right}"})
            assert answer.status_code == 200, answer.text
            # `/api/connect` hands its owner the token as the password for MQTT.
            seen.append(str(answer.headers) + ("" if path == "/api/connect" else answer.text))
        async with wire(gateway.mqtt_url) as connection:
            packet = Connect("c", ProtocolVersion.V5, username="u", password=right.encode())
            connection.send(encode(packet, ProtocolVersion.V5))
            seen.append((await connection.reader.read(4096)).decode("latin-1"))
            assert seen[-1][0] == "\x20"
            assert seen[-1][3] == "\0"
        seen += [repr(gateway.settings), repr(gateway.gate), repr(Credentials(token=SECRET, door="rest"))]
        seen.append("\n".join(map(str, gateway._samples())))
        seen += [str(task) for task in asyncio.all_tasks()]
    seen += [
        record.getMessage() + str(record.__dict__) for record in caplog.records if record.name.split(".")[0] in OURS
    ]
    assert len(seen) > 40
    for text in seen:
        for mark in marks:
            assert mark not in text, text[:2000]
