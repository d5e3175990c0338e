"""EMQX's HTTP authentication and authorisation, as its documentation says."""

from __future__ import annotations

import json

import jwt
import pytest

from gapless.auth import Acl
from gapless.brokers.asked.emqx import acl_claim
from tests.brokers.desk import KEY, Desk, token

SALES = token("7", "SALES", rooms=["lead:1"])


async def connect(desk: Desk, password: str, **fields: str) -> dict[str, object]:
    body = {"username": "7", "password": password, "clientid": "7~phone", "peerhost": "10.0.0.9", **fields}
    answer = await desk.json("/emqx/authenticate", body)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    found: dict[str, object] = answer.json()
    return found


async def may(desk: Desk, action: str, topic: str, client_id: str = "7~phone") -> str:
    body = {"username": "7", "clientid": client_id, "topic": topic, "action": action}
    answer = await desk.json("/emqx/authorize", body)
    assert answer.status_code == 200
    assert answer.content in (b'{"result":"allow"}', b'{"result":"deny"}')
    return str(answer.json()["result"])


async def test_the_answer_to_a_good_token_byte_by_byte(desk: Desk) -> None:
    expires = jwt.decode(SALES, KEY, ["HS256"])["exp"]
    body = json.dumps({"username": "7", "password": SALES, "clientid": "7~phone", "peerhost": "10.0.0.9"}).encode()
    answer = await desk.ask("/emqx/authenticate", body, "application/json")

    def lines(permission: str, action: str, *topics: str) -> list[dict[str, str]]:
        return [{"permission": permission, "action": action, "topic": topic} for topic in topics]

    subscribe = ["crm/leads/1/created", "crm/leads/1/updated", "crm/leads/1/assigned", "crm/users/7/presence"]
    subscribe += ["crm/notifications/+", "crm/users/7/notifications/+", "crm/system/backend/status"]
    expected = {
        "result": "allow",
        "is_superuser": False,
        "expire_at": expires,
        "acl": [
            *lines("deny", "all", "$SYS/#"),
            *lines("deny", "subscribe", "eq crm/notifications/#", "eq crm/users/7/notifications/#"),
            *lines("allow", "subscribe", *subscribe, "gapless/replies/7/#"),
            *lines("allow", "publish", "crm/users/7/presence", "gapless/history"),
            *lines("deny", "all", "#"),
        ],
    }
    assert answer.content == json.dumps(expected, separators=(",", ":")).encode()


async def test_a_bad_token_is_denied_with_200_since_anything_else_asks_the_next_source(desk: Desk) -> None:
    for password in ("", "nonsense", token("8"), token("7", expires_in=-1)):
        assert await connect(desk, password) == {"result": "deny"}
    assert desk.door.answers["emqx", "authenticate", "deny"] == 4


async def test_names_of_others_are_denied(desk: Desk) -> None:
    assert (await connect(desk, SALES, username="8"))["result"] == "deny"
    assert (await connect(desk, SALES, clientid="8~phone"))["result"] == "deny"
    assert (await connect(desk, SALES, clientid="phone"))["result"] == "deny"
    assert (await connect(desk, SALES, clientid="gapless-k3x9"))["result"] == "deny"
    assert (await connect(desk, SALES, username="7~a1", clientid="7~x"))["result"] == "allow"


async def test_authorisation_is_exact_where_no_list_was_asked_for(desk: Desk) -> None:
    assert "acl" not in await connect(desk, SALES, acl="no")
    assert await may(desk, "subscribe", "crm/leads/1/updated") == "allow"
    assert await may(desk, "subscribe", "crm/leads/2/updated") == "deny"
    assert await may(desk, "subscribe", "crm/notifications/+") == "allow"
    assert await may(desk, "subscribe", "crm/notifications/#") == "deny"
    assert await may(desk, "subscribe", "$share/g/crm/notifications/+") == "allow"
    assert await may(desk, "subscribe", "$queue/crm/leads/2/updated") == "deny"
    assert await may(desk, "subscribe", "$SYS/#") == "deny"
    assert await may(desk, "publish", "crm/users/7/presence") == "allow"
    assert await may(desk, "publish", "crm/users/8/presence") == "deny"
    assert await may(desk, "publish", "crm/users/+/presence") == "deny"
    assert await may(desk, "anything", "crm/users/7/presence") == "deny"
    assert await may(desk, "subscribe", "crm/leads/1/updated", client_id="7~other") == "deny"


async def test_everybody_reads_the_answers_to_their_own_requests_alone(desk: Desk) -> None:
    await connect(desk, SALES)
    assert await may(desk, "publish", "gapless/history") == "allow"
    assert await may(desk, "subscribe", "gapless/replies/7/#") == "allow"
    assert await may(desk, "subscribe", "gapless/replies/7/phone") == "allow"
    assert await may(desk, "subscribe", "gapless/replies/#") == "deny"
    assert await may(desk, "subscribe", "gapless/replies/8/x") == "deny"
    assert await may(desk, "publish", "gapless/replies/8/x") == "deny"
    assert await may(desk, "subscribe", "gapless/heartbeat") == "deny"


async def test_the_heartbeat_where_it_is_allowed() -> None:
    async with Desk(heartbeat=True) as desk:
        await connect(desk, SALES)
        assert await may(desk, "subscribe", "gapless/heartbeat") == "allow"
        assert await may(desk, "publish", "gapless/heartbeat") == "deny"


@pytest.mark.parametrize(
    "topics", [("a/${username}/b",), ("eq crm/leads",)], ids=["a placeholder", "an exact comparison"]
)
def test_what_emqx_would_read_as_something_else_is_left_out(topics: tuple[str, ...]) -> None:
    assert acl_claim(Acl(topics, topics, True)) == acl_claim(Acl((), (), True))


def test_a_list_for_a_token_is_bounded_and_still_ends_in_deny_all() -> None:
    acl = Acl(tuple(f"t/{number}" for number in range(500)), (), True)
    lines = acl_claim(acl, limit=100)
    assert len(lines) == 100
    assert lines[-1] == {"permission": "deny", "action": "all", "topic": "#"}
