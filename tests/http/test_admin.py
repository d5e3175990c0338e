"""Revoking and rechecking over HTTP; what those who run the gateway may see, and others may not."""

from __future__ import annotations

import time
from typing import Any

import httpx
import jwt
import pytest

from gapless.auth import AuthOptions, PolicyGate
from gapless.topicmap import crm_map
from tests.http.conftest import Site, running

SECRET = "of-thirty-two-bytes-and-a-few-more"


def bearer(*roles: str, user: str = "1", **more: Any) -> dict[str, str]:
    now = int(time.time())
    claims = {"sub": user, "roles": list(roles), "iat": now - 5, "exp": now + 600, **more}
    return {"authorization": f"Bearer {jwt.encode(claims, SECRET)}"}


ADMIN = bearer("ADMIN")


def site() -> Site:
    return Site(gate=PolicyGate(crm_map(), AuthOptions(secret=SECRET)))


async def test_a_revoked_users_stream_ends_and_its_token_is_refused() -> None:
    async with running(site()) as there, httpx.AsyncClient(base_url=there.url) as http:
        theirs = bearer("MANAGER", user="7")
        async with http.stream("GET", "/api/stream?rooms=org:global", headers=theirs) as stream:
            assert stream.status_code == 200
            answer = await http.post("/api/admin/revocations", json={"user": "7"}, headers=ADMIN)
            assert answer.status_code == 201
            assert answer.json()["connectionsEnded"] == 1
            assert answer.json()["revocation"]["subject"] == "7"
            async for _ in stream.aiter_bytes():
                pass
        refused = await http.get("/api/events?rooms=org:global", headers=theirs)
        assert (refused.status_code, refused.json()["error"]["details"]) == (401, {"reason": "revoked"})
        listed = (await http.get("/api/admin/revocations", headers=ADMIN)).json()["revocations"]
        assert [(each["kind"], each["subject"]) for each in listed] == [("user", "7")]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"user": ""},
        {"user": "7", "token": "a"},
        {"user": 7},
        {"other": "7"},
        {"user": "x" * 257},
        {"user": "7", "issuedBefore": "soon"},
        {"token": "a", "issuedBefore": 5},
        [],
    ],
)
async def test_what_is_no_revocation(body: Any) -> None:
    async with running(site()) as there, httpx.AsyncClient(base_url=there.url, headers=ADMIN) as http:
        answer = await http.post("/api/admin/revocations", json=body)
        assert answer.status_code == 400
        assert answer.json()["error"]["hint"]
        assert (await http.get("/api/admin/revocations")).json() == {"revocations": []}


async def test_who_may_not() -> None:
    async with running(site()) as there, httpx.AsyncClient(base_url=there.url) as http:
        for headers, status in (({}, 401), (bearer("MANAGER"), 403)):
            for path in ("/api/admin/revocations", "/api/admin/recheck"):
                assert (await http.post(path, json={"user": "7"}, headers=headers)).status_code == status
            assert (await http.get("/api/admin/revocations", headers=headers)).status_code == status
            assert (await http.get("/metrics", headers=headers)).status_code == status


async def test_recheck() -> None:
    async with running(site()) as there, httpx.AsyncClient(base_url=there.url) as http:
        async with http.stream("GET", "/api/stream?rooms=org:global", headers=bearer("MANAGER", user="7")):
            for body, count in (({"user": "7"}, 1), ({"user": "8"}, 0), ({}, 1)):
                answer = await http.post("/api/admin/recheck", json=body, headers=ADMIN)
                assert answer.json() == {"connections": count}


async def test_without_keys_there_is_nothing_to_revoke() -> None:
    async with running(Site()) as there, httpx.AsyncClient(base_url=there.url) as http:
        assert (await http.post("/api/admin/revocations", json={"user": "7"})).status_code == 404


async def test_readiness_is_for_everybody_its_parts_are_not() -> None:
    async with running(site()) as there, httpx.AsyncClient(base_url=there.url) as http:
        assert (await http.get("/healthz")).status_code == 200
        for headers in ({}, bearer("SALES"), {"authorization": "Basic x"}):
            answer = await http.get("/readyz", headers=headers)
            assert (answer.status_code, answer.json()) == (200, {"ready": True, "components": {}})
        assert (await http.get("/readyz", headers=bearer("METRICS"))).json()["components"]["log"] == "ok"
