"""Whatever is wrong, a broker is told no, in a way that it takes for a no."""

from __future__ import annotations

import base64
import logging

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gapless.auth import Credentials, Identity
from gapless.brokers import BrokerAuthOptions
from gapless.errors import ConfigError
from tests.brokers.desk import SECRET, Desk, token
from tests.gates import TableGate

LOGIN = {"username": "7", "password": token("7", "ADMIN"), "clientid": "7~a", "client_id": "7~a"}
CALLS = {
    "/emqx/authenticate": (200, b'{"result":"deny"}'),
    "/emqx/authorize": (200, b'{"result":"deny"}'),
    "/rabbitmq/user": (200, b"deny"),
    "/rabbitmq/topic": (200, b"deny"),
    "/go-auth/user": (403, None),
    "/vernemq": (200, None),
}


def is_no(path: str, answer: httpx.Response) -> bool:
    status, body = CALLS[path]
    assert answer.status_code == status
    assert body is None or answer.content == body
    try:
        said = answer.json()
    except ValueError:
        return answer.content not in (b"allow", b"ok", b"true")
    if isinstance(said, dict):  # what a message repeats of the question is no answer
        return said.get("Ok") is not True and said.get("result") not in ("ok", "allow")
    return said is not True


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize("authorization", ["", "Bearer wrong", "Bearer", "Basic !!!", "Basic Og==", "Digest x"])
async def test_only_who_has_the_secret_may_ask(desk: Desk, path: str, authorization: str) -> None:
    headers = {"authorization": authorization, "vernemq-hook": "auth_on_register"}
    answer = await desk.http.post(path, json=LOGIN, headers=headers)
    assert is_no(path, answer)
    assert answer.headers["x-gapless-reason"] == "the broker's secret is missing or wrong"
    assert len(desk.logins) == 0


async def test_the_secret_as_basic_password_or_in_the_path(desk: Desk) -> None:
    basic = base64.b64encode(f"broker:{SECRET}".encode()).decode()
    body = {"username": "7", "password": LOGIN["password"]}
    for path, headers in (("/rabbitmq/user", {"authorization": f"Basic {basic}"}), (f"/{SECRET}/rabbitmq/user", {})):
        assert (await desk.http.post(path, data=body, headers=headers)).text == "allow"
    assert (await desk.http.post("/another/rabbitmq/user", data=body)).text == "deny"
    hook = {"vernemq-hook": "auth_on_register"}
    assert (await desk.http.post(f"/{SECRET}/vernemq", json=LOGIN, headers=hook)).content == b'{"result":"ok"}'
    assert b"error" in (await desk.http.post("/another/vernemq", json=LOGIN, headers=hook)).content


async def test_strangers_are_counted_and_logged_ever_more_rarely(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "gapless.brokers")
    for _ in range(9):
        await desk.http.post("/rabbitmq/user", data={"username": "x"})
    assert desk.door.answers["rabbitmq", "user", "stranger"] == 9
    assert len(caplog.records) == 4
    assert SECRET not in caplog.text


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", "application/json"),
        (b"[]", "application/json"),
        (b"{", "application/json"),
        (b'{"username": 7}', "application/json"),
        (b'{"username": "\xff"}', "application/json"),
        (b"[" * 100_000, "application/json"),
        (b"", "application/x-www-form-urlencoded"),
        (b"username=7&username=8&password=x", "application/x-www-form-urlencoded"),
        (b"username=%ff", "application/x-www-form-urlencoded"),
        (b"a" * 200_000, "text/plain"),
        (b"&".join(b"a%d=1" % n for n in range(500)), "text/plain"),
    ],
)
async def test_malformed_requests_are_denied(desk: Desk, path: str, body: bytes, content_type: str) -> None:
    answer = await desk.ask(path, body, content_type, **{"vernemq-hook": "auth_on_register"})
    assert is_no(path, answer)
    assert sum(count for (_, _, outcome), count in desk.door.answers.items() if outcome == "malformed") == 1


@example(body=b"true", path="/go-auth/user", as_json=False)
@given(body=st.binary(max_size=200), path=st.sampled_from(sorted(CALLS)), as_json=st.booleans())
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
async def test_any_bytes_are_denied(desk: Desk, body: bytes, path: str, as_json: bool) -> None:
    content_type = "application/json" if as_json else "application/x-www-form-urlencoded"
    answer = await desk.ask(path, body, content_type, **{"vernemq-hook": "auth_on_register"})
    assert is_no(path, answer)


async def test_a_query_is_not_taken(desk: Desk) -> None:
    answer = await desk.http.get("/rabbitmq/user", params=LOGIN, headers={"authorization": f"Bearer {SECRET}"})
    assert answer.text == "deny"


@pytest.mark.parametrize("path", ["/", "/emqx", "/emqx/", "/emqx/nothing", "/hivemq/user", "/a/b/c/d", "/vernemq/x"])
async def test_other_paths_do_not_exist(desk: Desk, path: str) -> None:
    assert (await desk.json(path, LOGIN)).status_code == 404


class BrokenGate(TableGate):
    async def authenticate(self, credentials: Credentials) -> Identity:
        raise RuntimeError("a defect")


@pytest.mark.parametrize("path", ["/emqx/authenticate", "/rabbitmq/user", "/go-auth/user", "/vernemq"])
async def test_a_defect_of_ours_is_a_no(path: str, caplog: pytest.LogCaptureFixture) -> None:
    async with Desk(gate=BrokenGate()) as desk:
        body = {"username": "7", "password": "x", "client_id": "7~a"}
        answer = await desk.json(path, body, **{"vernemq-hook": "auth_on_register"})
        assert is_no(path, answer)
    assert "denied" in caplog.text


@pytest.mark.parametrize("secret", ["short", "with-a-dash-and-long-enough", ""])
def test_a_poor_secret_stops_the_start(secret: str) -> None:
    with pytest.raises(ConfigError, match="broker_auth.secret"):
        BrokerAuthOptions(secret=secret)


def test_the_secret_is_masked() -> None:
    assert SECRET not in repr(BrokerAuthOptions(secret=SECRET))
