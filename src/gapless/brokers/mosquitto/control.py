"""The connection over which Mosquitto's dynamic security is told what to do, kept up for ever."""

from __future__ import annotations

import asyncio
import logging
import random as _random
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from gapless.brokers.mosquitto.commands import Command
from gapless.errors import GaplessError, Overloaded
from gapless.link import LinkError, LinkOptions
from gapless.link.backoff import Backoff
from gapless.link.connection import Connection
from gapless.mqtt import Connect, Packet, ProtocolVersion, Puback, Publish, Suback, Subscribe, SubscriptionRequest

logger = logging.getLogger("gapless.brokers")

TOPIC = "$CONTROL/dynamic-security/v1"
MAX_WAITING = 20_000
"""Commands that wait; past it, new ones are refused."""

_ANSWER_SECONDS = 15.0
_STALL = 0.05
"""Seconds for which one message may hold up the broker, which serves nobody while it works on commands."""
_MOST_AT_ONCE = 50
_SUBSCRIBE_ID = 1
_PUBLISH_ID = 2


class BrokerUnavailable(Overloaded):
    """The broker cannot be told now; it will be, once it is back."""

    code = "broker_unavailable"


class CommandRefused(GaplessError):
    """The broker did not do a command; its own words are the message."""

    code = "broker_refused"


class _Response(msgspec.Struct):
    command: str = ""
    error: str | None = None
    data: Any = None
    correlation: str | None = msgspec.field(default=None, name="correlationData")


class _Responses(msgspec.Struct):
    responses: list[_Response]


_decode = msgspec.json.Decoder(_Responses).decode


class Control:
    """Sends commands, several at a time but never so many that the broker stalls for long.

    Args:
        options: where, and the account that may administer dynamic security.
        reconcile: called after each connect, before anything else is sent; brings the broker into line.
        random: draws from 0 (included) to 1, for the back-off.
    """

    def __init__(
        self,
        options: LinkOptions,
        reconcile: Callable[[], Awaitable[None]],
        *,
        random: Callable[[], float] = _random.random,
    ) -> None:
        options.tls_context()  # wrong files stop the start, not each attempt
        self._options = options
        self._reconcile = reconcile
        self._backoff = Backoff(options.reconnect_min, options.reconnect_max, random)
        self._token = secrets.token_hex(4)
        self._count = 0
        self._connection: Connection | None = None
        self._lost: asyncio.Future[LinkError] | None = None
        self._subscribed: asyncio.Future[Suback] | None = None
        self._waiting: deque[tuple[Command, asyncio.Future[Any]]] = deque()
        self._sent: dict[str, asyncio.Future[Any]] = {}
        self._news = asyncio.Event()
        self._ready = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._seconds_each = 0.005
        self.problem = "not connected yet"
        self.commands = 0

    def start(self) -> None:
        """Begin to connect."""
        self._task = asyncio.create_task(self._run(), name="dynamic-security")

    async def stop(self) -> None:
        """Disconnect. What was not sent yet is refused."""
        if self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            await asyncio.wait([task])
        self._refuse_all("the gateway stops")

    @property
    def ready(self) -> bool:
        """Whether the broker is in line."""
        return self._ready.is_set()

    @property
    def connected(self) -> bool:
        """Whether commands are taken now."""
        return self._connection is not None and not self._connection.closed

    async def wait_ready(self) -> None:
        """Wait until it is; `asyncio.timeout` bounds it."""
        await self._ready.wait()

    async def do(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands, in order; the data of their answers. Cancelling does not take them back.

        Raises:
            BrokerUnavailable: there is no connection, it was lost meanwhile, or too many wait.
                What was done is not known.
            CommandRefused: the broker refused one; the others were done all the same.
        """
        found = await asyncio.gather(*self.enqueue(commands), return_exceptions=True)
        for each in found:
            if isinstance(each, BaseException):
                raise each
        return found

    def enqueue(self, commands: Sequence[Command]) -> list[asyncio.Future[Any]]:
        """Have commands sent, in the order of the calls; futures of the data of their answers.

        Raises:
            BrokerUnavailable: there is no connection, or too many wait.
            CommandRefused: (from a future) the broker refused it.
        """
        if not self.connected:
            raise BrokerUnavailable("the broker cannot be told what its clients may do", hint=self.problem)
        if len(self._waiting) + len(commands) > MAX_WAITING:
            raise BrokerUnavailable("too many commands wait for the broker", limit=MAX_WAITING)
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Any]] = [loop.create_future() for _ in commands]
        self._waiting.extend(zip(commands, futures, strict=True))
        self._news.set()
        return futures

    # --- the connection, again and again

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                error: GaplessError = await self._one_connection()
            except GaplessError as failure:
                error = failure
            except Exception as failure:  # a defect must not end it for ever
                logger.exception("dynamic security: the connection failed")
                error = LinkError("session", f"{type(failure).__name__} in the gateway", hint="see the gateway's log")
            if self._ready.is_set() and loop.time() - began >= self._options.stable_after:
                self._backoff.reset()
            self._ready.clear()
            again = error.message == self.problem
            self.problem = error.message
            wait = self._backoff.next()
            attempt = self._backoff.attempts
            level = logging.DEBUG if again and attempt & (attempt - 1) else logging.WARNING  # 1, 2, 4, 8, …
            hint = f" ({error.hint})" if error.hint else ""
            logger.log(level, "dynamic security: %s; next attempt in %.1f s%s", error.message, wait, hint)
            await asyncio.sleep(wait)

    async def _one_connection(self) -> GaplessError:
        loop = asyncio.get_running_loop()
        options = self._options
        user, password = options.credentials
        connect = Connect(
            f"{options.client_id or 'gapless-control'}-{self._token}",
            ProtocolVersion.V5,
            keep_alive=options.keepalive,
            username=user,
            password=None if password is None else password.encode(),
        )
        self._lost = loop.create_future()
        self._subscribed = loop.create_future()
        tls = await asyncio.to_thread(options.tls_context)
        connection = Connection(options.address, connect, self)
        try:
            await connection.open(tls, timeout=options.connect_timeout)
            self._connection = connection
            connection.start()
            await self._listen(connection)
            sending = asyncio.create_task(self._send(connection), name="dynamic-security-commands")
            reconciling = asyncio.create_task(self._bring_into_line(), name="dynamic-security-reconcile")
            try:
                either: list[asyncio.Future[Any]] = [sending, reconciling, self._lost]
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                for task in (sending, reconciling):
                    if task.done():
                        await task  # it failed
                return await self._lost
            finally:
                for task in (sending, reconciling):
                    task.cancel()
                await asyncio.gather(sending, reconciling, return_exceptions=True)
        finally:
            self._connection = None
            connection.detach()
            connection.abort()
            self._refuse_all("the connection to the broker was lost")

    async def _listen(self, connection: Connection) -> None:
        assert self._subscribed is not None
        connection.send(Subscribe(_SUBSCRIBE_ID, [SubscriptionRequest(f"{TOPIC}/response", qos=1)]))
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                answer = await self._subscribed
        except TimeoutError as error:
            raise LinkError("session", "the broker did not answer SUBSCRIBE in time") from error
        if any(code.is_failure for code in answer.reason_codes):
            raise LinkError(
                "session",
                "the account may not administer dynamic security",
                hint="give it the role that `mosquitto_ctrl dynsec init` made for its admin",
            )

    async def _bring_into_line(self) -> None:
        await self._reconcile()
        self.problem = ""
        self._ready.set()
        logger.info("dynamic security: %s is in line", self._options.address)
        await asyncio.get_running_loop().create_future()  # the end of the connection ends it

    async def _send(self, connection: Connection) -> None:
        """One message at a time: the broker works on it, and serves its clients before the next."""
        loop = asyncio.get_running_loop()
        while True:
            while not self._waiting:
                self._news.clear()
                await self._news.wait()
            number = max(1, min(_MOST_AT_ONCE, int(_STALL / self._seconds_each), len(self._waiting)))
            batch = [self._waiting.popleft() for _ in range(number)]
            commands = []
            for command, future in batch:
                self._count += 1
                name = f"{self._token}-{self._count}"
                self._sent[name] = future
                commands.append({**command, "correlationData": name})
            self.commands += number
            began = loop.time()
            connection.send(Publish(TOPIC, msgspec.json.encode({"commands": commands})))
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    await asyncio.gather(*(future for _, future in batch), return_exceptions=True)
            except TimeoutError as error:
                raise LinkError(
                    "session",
                    "the broker did not answer to commands",
                    hint="is its plug-in mosquitto_dynamic_security.so loaded, and may the account publish to it?",
                ) from error
            self._seconds_each = 0.7 * self._seconds_each + 0.3 * max((loop.time() - began) / number, 1e-4)

    def _refuse_all(self, why: str) -> None:
        waiting = [future for _, future in self._waiting] + list(self._sent.values())
        self._waiting.clear()
        self._sent.clear()
        for future in waiting:
            if not future.done():
                future.set_exception(BrokerUnavailable(why))
                future.exception()  # perhaps nobody waits any more

    # --- what the connection calls (its Handler)

    def on_packet(self, packet: Packet) -> None:
        """A packet has come."""
        if isinstance(packet, Suback):
            if self._subscribed is not None and not self._subscribed.done():
                self._subscribed.set_result(packet)
        elif isinstance(packet, Publish):
            if packet.qos == 1 and self._connection is not None:
                self._connection.send(Puback(packet.packet_id))
            self._take(packet.payload)

    def _take(self, payload: bytes) -> None:
        try:
            responses = _decode(payload).responses
        except msgspec.DecodeError as error:
            raise LinkError("session", f"the broker answered in another form: {error}") from error
        for response in responses:  # those to other administrators come here too
            future = self._sent.pop(response.correlation or "", None)
            if future is None or future.done():
                continue
            if response.error is None:
                future.set_result(response.data)
            else:
                future.set_exception(CommandRefused(response.error, command=response.command))
                future.exception()  # perhaps nobody waits any more

    def on_writable(self) -> None:
        """Nothing waits for it."""

    def on_closed(self, error: LinkError) -> None:
        """The connection has ended."""
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(error)
