"""`/healthz` and `/readyz`: for whoever starts, watches and balances gateways."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import msgspec

from gapless.auth import Gate, PolicyGate
from gapless.errors import Forbidden, LogError, Unauthorized
from gapless.eventlog import EventLog, StateKind, StateWrite
from gapless.transports.http.endpoint import encode
from gapless.transports.http.request import Request

OK = "ok"
_PROBE_SECONDS = 2.0
# The deletion of what was never there (no pid is so short): it passes through the log's writer, and changes nothing.
_PROBE = (StateWrite(StateKind.SOCKETIO_SESSION, "readyz", None),)


class Ready(msgspec.Struct, frozen=True):
    """The answer of `/readyz`: each component is `ok`, or says what is wrong. Only those who may read the
    metrics are told of the components; to others there are none.
    """

    ready: bool
    components: dict[str, str]


class Health:
    """Answers `/healthz` and `/readyz`.

    Args:
        status: the state of the gateway's other components; each `ok`, or what is wrong.
    """

    def __init__(self, *, gate: Gate, log: EventLog, status: Callable[[], Mapping[str, str]]) -> None:
        self._gate = gate
        self._log = log
        self._status = status
        self.started = False
        self._probe: asyncio.Task[str] | None = None

    async def healthz(self, request: Request) -> None:
        """Alive: the event loop answers. Nothing else is looked at."""
        await request.answer(200, b'{"alive":true}')

    async def readyz(self, request: Request) -> None:
        """Ready: the doors are open, the log takes writes, and no component has a problem."""
        components = {"doors": OK if self.started else "not started, or stopping", "log": await self._log_state()}
        for name, state in self._status().items():
            if components.get(name, OK) == OK:
                components[name] = state
        ready = all(state == OK for state in components.values())
        await request.answer(
            200 if ready else 503, encode(Ready(ready, components if await self._may_know(request) else {}))
        )

    async def _may_know(self, request: Request) -> bool:
        """What is wrong with a part is for those who run it."""
        try:
            if isinstance(self._gate, PolicyGate) and request.token() is None:
                return False  # a load balancer, each second: nothing for the audit log
            await request.require(self._gate, "metrics")
        except (Unauthorized, Forbidden):
            return False
        return True

    async def _log_state(self) -> str:
        # One probe at a time, however many ask.
        if self._probe is None or self._probe.done():
            self._probe = asyncio.create_task(self._try_log(), name="readyz-probe")
        return await asyncio.shield(self._probe)

    async def _try_log(self) -> str:
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                await self._log.write_state(_PROBE, durable=True)
        except TimeoutError:
            return f"no write went through within {_PROBE_SECONDS:g} s"
        except LogError as error:
            return error.message
        return OK
