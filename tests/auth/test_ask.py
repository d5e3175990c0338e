"""The application's decisions, over a real HTTP endpoint and from Python."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import pytest

from gapless.auth import Answer, AskOptions, Identity, Question
from gapless.auth.ask import Application, one_by_one
from gapless.auth.ask_http import HttpAsk
from tests.auth.support import Clock, LocalHttp, Reply, local_http

SALES = Identity(user_id="7", roles=frozenset({"SALES"}), claims={"team": 5}, token_id="t1")
LEAD = Question("subscribe", "room", "lead:1")
OTHER = Question("publish", "topic", "crm/notes/2/collaboration")


def yes(body: bytes) -> Reply:
    return Reply(b'{"allow": true}')


async def answers(server: LocalHttp, *questions: Question, **options: Any) -> tuple[Application, list[bool | None]]:
    """What the application's endpoint is understood to say."""
    settings = AskOptions(url=server.url + "/allow", **options)
    http = HttpAsk(settings)
    application = Application(settings, http)
    await application.ask(SALES, questions)
    await http.stop()
    return application, [application.answer(SALES, question) for question in questions]


async def test_one_question_is_one_request() -> None:
    async with local_http(yes) as server:
        _, said = await answers(server, LEAD, token="of-the-gateway")
    assert said == [True]
    [(path, body)] = server.asked
    assert path == "/allow"
    assert json.loads(body) == {
        "action": "subscribe",
        "room": "lead:1",
        "user": "7",
        "roles": ["SALES"],
        "claims": {"team": 5},
    }
    assert "authorization: bearer of-the-gateway" in server.heads[0].lower()


async def test_a_batch_is_one_request() -> None:
    async with local_http(lambda body: Reply(b'{"answers": [{"allow": false}, {"allow": true}]}')) as server:
        _, said = await answers(server, LEAD, OTHER, batch=10)
    assert said == [False, True]
    asked = json.loads(server.asked[0][1])
    assert asked["questions"] == [
        {"action": "subscribe", "room": "lead:1"},
        {"action": "publish", "topic": "crm/notes/2/collaboration"},
    ]


@pytest.mark.parametrize(
    "reply",
    [
        Reply(b"", 500),
        Reply(b'{"allow": true}', 302, "location: /yes\r\n"),
        Reply(b'{"allow": true}', 201),
        Reply(b"yes"),
        Reply(b'"allow"'),
        Reply(b"[true]"),
        Reply(b'{"allow": "true"}'),
        Reply(b'{"allow": 1}'),
        Reply(b'{"allow": null}'),
        Reply(b'{"allow": true, "ttl": "long"}'),
        Reply(b"{}"),
        Reply(b"\xff"),
        Reply(b'{"allow": true, "x": "' + b"x" * 20_000 + b'"}'),
        Reply(b"[" * 5000),
    ],
)
async def test_what_is_no_yes_is_a_no(reply: Reply) -> None:
    async with local_http(lambda body: reply) as server:
        application, said = await answers(server, LEAD)
    assert said == [False]
    assert application.counts["failed"] == 1
    assert application.counts["allowed"] == 0


@pytest.mark.parametrize("body", [b'{"answers": []}', b'{"answers": [{"allow": true}, {"allow": true}]}'])
async def test_a_batch_of_another_length_is_no_answer(body: bytes) -> None:
    async with local_http(lambda _: Reply(body)) as server:
        application, said = await answers(server, LEAD, batch=2)
    assert said == [False]
    assert application.counts["failed"] == 1


async def test_nobody_listens() -> None:
    async with local_http(yes) as server:
        pass
    application, said = await answers(server, LEAD)
    assert said == [False]
    assert application.counts["failed"] == 1


async def test_no_answer_in_time_is_a_no() -> None:
    never = asyncio.Event()

    async def reply(body: bytes) -> Reply:
        await never.wait()
        return Reply(b'{"allow": true}')

    async with local_http(reply) as server:
        application, said = await answers(server, LEAD, timeout=0.05)
        never.set()
    assert said == [False]
    assert application.counts["timeout"] + application.counts["failed"] == 1


# --- answers that hold for a while


class Asked:
    """A Python callable that answers as it is told."""

    def __init__(self, answer: bool | Answer | Exception = True) -> None:
        self.answer = answer
        self.questions: list[Question] = []
        self.may = asyncio.Event()
        self.may.set()
        self.began = asyncio.Event()

    async def __call__(self, identity: Identity, question: Question) -> bool | Answer:
        self.questions.append(question)
        self.began.set()
        await self.may.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def python(asked: Asked, clock: Clock, **options: Any) -> Application:
    return Application(AskOptions(**options), one_by_one(asked), clock=clock)


async def test_equal_questions_at_a_time_are_one() -> None:
    asked = Asked()
    asked.may.clear()
    application = python(asked, Clock())
    asking = [asyncio.create_task(application.ask(SALES, [LEAD, LEAD])) for _ in range(5)]
    await asked.began.wait()
    asking.pop().cancel()  # the others still get their answer
    asked.may.set()
    await asyncio.gather(*asking)
    assert asked.questions == [LEAD]
    assert application.answer(SALES, LEAD) is True


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (True, 60),
        (False, 10),
        (Answer(True, 300), 300),
        (Answer(True, 1e9), 3600),
        (Answer(True, 0), 3),  # as long as the check that asked may take
        (Answer(False, -5), 3),
        (RuntimeError("boom"), 3),
    ],
)
async def test_how_long_an_answer_holds(answer: bool | Answer | Exception, seconds: float) -> None:
    clock = Clock()
    application = python(Asked(answer), clock)
    await application.ask(SALES, [LEAD])
    clock.now += seconds - 0.01
    assert application.answer(SALES, LEAD) is not None
    clock.now += 0.02
    assert application.answer(SALES, LEAD) is None


async def test_an_answer_is_of_one_token() -> None:
    application = python(Asked(), Clock())
    await application.ask(SALES, [LEAD])
    fresh = Identity(user_id="7", roles=SALES.roles, token_id="t2")
    assert application.answer(SALES, LEAD) is True
    assert application.answer(fresh, LEAD) is None


async def test_what_is_forgotten_is_asked_again() -> None:
    asked = Asked()
    application = python(asked, Clock())
    await application.ask(SALES, [LEAD])
    application.forget("8")
    assert application.answer(SALES, LEAD) is True
    application.forget("7")
    assert application.answer(SALES, LEAD) is None


async def test_an_answer_from_before_the_rights_changed_does_not_count() -> None:
    asked = Asked()
    asked.may.clear()
    application = python(asked, Clock())
    asking = asyncio.create_task(application.ask(SALES, [LEAD]))
    await asked.began.wait()
    application.forget()
    asked.may.set()
    await asking
    assert application.answer(SALES, LEAD) is None


async def test_answers_are_bounded() -> None:
    application = python(Asked(), Clock(), max_answers=10)
    questions = [Question("subscribe", "room", f"lead:{number}") for number in range(30)]
    await application.ask(SALES, questions)
    assert [application.answer(SALES, question) for question in questions] == [None] * 20 + [True] * 10


async def test_without_an_application_the_answer_is_no() -> None:
    application = Application(AskOptions(), None)
    assert application.answer(SALES, LEAD) is False
    await application.ask(SALES, [LEAD])


async def test_stopping_cancels_what_is_on_its_way() -> None:
    asked = Asked()
    asked.may.clear()
    application = python(asked, Clock())
    asking = asyncio.create_task(application.ask(SALES, [LEAD]))
    await asked.began.wait()
    await application.stop()
    await asking
    assert application.answer(SALES, LEAD) is None


async def test_an_answer_ends_also_where_its_life_is_no_number() -> None:
    async def ask(identity: Identity, question: Question) -> Answer:
        return Answer(True, ttl=math.nan)

    clock = Clock()
    application = Application(AskOptions(), one_by_one(ask), clock=clock)
    await application.ask(SALES, [LEAD])
    assert application.answer(SALES, LEAD) is True
    clock.now += AskOptions().max_seconds
    assert application.answer(SALES, LEAD) is None
