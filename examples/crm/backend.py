"""The CRM's back end: leads in memory, sign-in, and what the page asks. Every change goes out as an event.

python backend.py [--port 8000] [--gateway http://127.0.0.1:8080]
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import jwt
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from gapless.client import Client

PRIVATE = Path(__file__).parent / "private"
ASK_TOKEN = "change-me"
STAGES = ("new", "contacted", "offer", "won", "lost")


class Person(NamedTuple):
    name: str
    role: str


PEOPLE = {
    "max": Person("Max Weber", "MANAGER"),
    "sam": Person("Sam Lee", "SALES"),
    "kim": Person("Kim Park", "SALES"),
}


class Crm:
    """The leads, and how others hear of their changes."""

    def __init__(self, gateway: str, key: str) -> None:
        self.gateway = gateway
        self.key = key
        rows = [
            ("1", "Acme Corp", "Anvils for the west coast", 48_000, "offer", "sam"),
            ("2", "Globex", "Yearly maintenance", 12_500, "contacted", "sam"),
            ("3", "Initech", "Stapler fleet", 7_900, "new", "kim"),
            ("4", "Umbrella Labs", "Cold storage", 96_000, "contacted", "kim"),
            ("5", "Stark & Sons", "Roof panels", 31_000, "won", "sam"),
        ]
        fields = ("leadId", "name", "about", "value", "stage", "owner")
        self.leads: dict[str, dict[str, Any]] = {row[0]: dict(zip(fields, row, strict=True)) for row in rows}
        self.activities: list[dict[str, Any]] = []
        self.events: Client

    @contextlib.asynccontextmanager
    async def connected(self, app: Starlette) -> AsyncIterator[None]:
        # What is told while the gateway is away waits in the store, and goes out once and in order.
        store = PRIVATE / "outbox.sqlite"
        async with Client(self.gateway, token=self.key, user="crm-backend", store=store) as self.events:
            yield

    def may_see(self, user: str, lead: dict[str, Any]) -> bool:
        return PEOPLE[user].role != "SALES" or lead["owner"] == user

    async def change(self, lead: dict[str, Any], changes: dict[str, Any], by: str) -> None:
        before = lead["owner"]
        lead |= changes
        moved = lead["owner"] != before
        await self.events.enqueue("lead:assigned" if moved else "lead:updated", {**lead, "by": by})
        if moved:
            text = f"{lead['name']} is yours now"
            note = {"userId": lead["owner"], "notificationId": uuid.uuid4().hex, "leadId": lead["leadId"], "text": text}
            await self.events.enqueue("notification", note)
            await self.rights_changed(before)

    async def add_activity(self, lead: dict[str, Any], kind: str, text: str, by: str) -> None:
        activity = {"activityId": uuid.uuid4().hex, "leadId": lead["leadId"], "kind": kind, "text": text, "by": by}
        self.activities.append(activity)
        await self.events.enqueue("activity:created", activity)

    async def rights_changed(self, user: str) -> None:
        """The gateway shall ask again what the user may hear: a lead that was taken away is silent at once."""
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {self.key}"}) as http:
            with contextlib.suppress(httpx.HTTPError):  # it is away: then it asks when they come back
                await http.post(f"{self.gateway}/api/admin/recheck", json={"user": user})


def make_app(crm: Crm, secret: str) -> Starlette:
    def user_of(request: Request) -> str:
        try:
            token = request.headers.get("authorization", "").removeprefix("Bearer ")
            return str(jwt.decode(token, secret, ["HS256"])["sub"])
        except jwt.InvalidTokenError:
            raise HTTPException(401) from None

    def lead_of(request: Request) -> tuple[str, dict[str, Any]]:
        user, lead = user_of(request), crm.leads.get(request.path_params["lead"])
        if lead is None or not crm.may_see(user, lead):
            raise HTTPException(404)
        return user, lead

    async def sign_in(request: Request) -> JSONResponse:
        """An example: nobody is asked for a password."""
        user = (await request.json()).get("user")
        if user not in PEOPLE:
            raise HTTPException(403)
        now = int(time.time())
        claims = {"sub": user, "roles": [PEOPLE[user].role], "iat": now, "exp": now + 900}
        people = {key: person.name for key, person in PEOPLE.items()}
        me = {"user": user, "role": PEOPLE[user].role, "people": people, "stages": STAGES, "gateway": crm.gateway}
        return JSONResponse({**me, "token": jwt.encode(claims, secret, "HS256")})

    async def list_leads(request: Request) -> JSONResponse:
        leads = [lead for lead in crm.leads.values() if crm.may_see(user_of(request), lead)]
        seen = {lead["leadId"] for lead in leads}
        return JSONResponse({"leads": leads, "activities": [a for a in crm.activities if a["leadId"] in seen]})

    async def change_lead(request: Request) -> JSONResponse:
        user, lead = lead_of(request)
        changes = {key: value for key, value in (await request.json()).items() if key in ("stage", "owner")}
        may_assign = PEOPLE[user].role == "MANAGER" and changes.get("owner", "sam") in PEOPLE
        if changes.get("stage", "new") not in STAGES or ("owner" in changes and not may_assign):
            raise HTTPException(400)
        await crm.change(lead, changes, user)
        return JSONResponse(lead)

    async def add_activity(request: Request) -> JSONResponse:
        user, lead = lead_of(request)
        body = await request.json()
        await crm.add_activity(lead, str(body["kind"]), str(body["text"])[:500], user)
        return JSONResponse({}, 201)

    async def allow(request: Request) -> JSONResponse:
        """The gateway asks (the rule `ask` of map.toml)."""
        if request.headers.get("authorization") != f"Bearer {ASK_TOKEN}":
            raise HTTPException(401)
        question = await request.json()
        lead = crm.leads.get(str(question.get("room", "")).removeprefix("lead:"))
        user = question.get("user")
        return JSONResponse({"allow": lead is not None and user in PEOPLE and crm.may_see(user, lead)})

    routes = [
        Route("/session", sign_in, methods=["POST"]),
        Route("/leads", list_leads),
        Route("/leads/{lead}", change_lead, methods=["PATCH"]),
        Route("/leads/{lead}/activities", add_activity, methods=["POST"]),
        Route("/realtime/allow", allow, methods=["POST"]),
        Mount("/", StaticFiles(directory=PRIVATE / "page", html=True)),
    ]
    return Starlette(routes=routes, lifespan=crm.connected)


def main() -> None:
    parser = argparse.ArgumentParser(description="The CRM's back end.")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--gateway", default="http://127.0.0.1:8080")
    options = parser.parse_args()
    crm = Crm(options.gateway, (PRIVATE / "key").read_text().strip())
    app = make_app(crm, (PRIVATE / "secret").read_text().strip())
    with socket.create_server(("127.0.0.1", options.port)) as listening:
        print(f"http://127.0.0.1:{options.port}/?user=max and, in another window, ?user=sam", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


if __name__ == "__main__":
    main()
