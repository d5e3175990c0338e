"""mosquitto-go-auth's HTTP back end, as its documentation says."""

from __future__ import annotations

import httpx
import pytest

from tests.brokers.desk import Desk, token

SALES = token("7", "SALES", rooms=["lead:1"])


async def acl(desk: Desk, topic: str, acc: int) -> httpx.Response:
    return await desk.json("/go-auth/acl", {"username": "7", "clientid": "7~a", "topic": topic, "acc": acc})


def is_yes(answer: httpx.Response) -> bool:
    if answer.status_code == 200:
        assert answer.content == b'{"Ok":true,"Error":""}'
        return True
    assert answer.status_code == 403
    assert answer.json()["Ok"] is False
    assert answer.json()["Error"]
    return False


async def test_users(desk: Desk) -> None:
    assert is_yes(await desk.json("/go-auth/user", {"username": "7", "password": SALES, "clientid": "7~a"}))
    assert not is_yes(await desk.json("/go-auth/user", {"username": "7", "password": "no", "clientid": "7~a"}))
    assert is_yes(await desk.form("/go-auth/user", username="7", password=SALES, clientid="7~a"))
    assert not is_yes(await desk.json("/go-auth/superuser", {"username": "7"}))


@pytest.mark.parametrize(
    ("topic", "yes"),
    [
        ("crm/leads/1/updated", {1, 4}),
        ("crm/leads/2/updated", set()),
        ("crm/users/7/presence", {1, 2, 3, 4}),
        ("crm/notifications/+", {1, 4}),
        ("gapless/history", {2}),
        ("gapless/replies/7/x", {1, 4}),
    ],
)
async def test_access_1_read_2_write_3_both_4_subscribe(desk: Desk, topic: str, yes: set[int]) -> None:
    await desk.json("/go-auth/user", {"username": "7", "password": SALES, "clientid": "7~a"})
    assert {acc for acc in range(7) if is_yes(await acl(desk, topic, acc))} == yes


async def test_a_form_says_acc_as_text(desk: Desk) -> None:
    await desk.form("/go-auth/user", username="7", password=SALES, clientid="7~a")
    fields = {"username": "7", "clientid": "7~a", "topic": "crm/leads/1/updated", "acc": "4"}
    assert is_yes(await desk.form("/go-auth/acl", **fields))
