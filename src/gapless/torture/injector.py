"""Doing the faults of a plan, and healing them."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from gapless.torture.checker import FaultDone
from gapless.torture.gateway import set_clock
from gapless.torture.plan import Fault, FaultKind
from gapless.torture.world import World

_NO_BYTES = 4096
"""Largest size of any file that the gateway may write while its disk is "full": not one page fits a log in use."""


class Injector:
    """Does each fault at its time; what began is healed before `run` returns.

    | fault | how |
    |---|---|
    | `…-kill` | SIGKILL; after `seconds` started again, on the same data and ports |
    | `…-pause` | SIGSTOP; SIGCONT after `seconds` |
    | `disk-full` | no file that the gateway writes may grow (RLIMIT_FSIZE): EFBIG; Linux only |
    | `clock-jump` | the gateway's `time.time` jumps, and after `seconds` back |
    | `link-cut` | all connections end on both sides |
    | `link-blackhole` | nothing gets through, nothing is reset; then what was held back does, or all is cut |
    | `link-delay`, `link-slow`, `link-refuse` | see `gapless.testing.Link` |
    | `slow-reader` | what is sent to the client arrives at `amount` bytes a second |
    | `change-transport` | a client with a cursor goes on on another transport |

    Args:
        on_fault: told of each fault when it begins.
    """

    def __init__(self, world: World, on_fault: Callable[[Fault], None]) -> None:
        self._world = world
        self._on_fault = on_fault
        self._locks: dict[str, asyncio.Lock] = {}
        self.done: list[FaultDone] = []
        self.skipped: list[Fault] = []

    async def run(self, began: float) -> None:
        """Do all faults of the plan, the first ones counted from `began` (seconds since the Unix epoch)."""
        async with asyncio.TaskGroup() as group:
            for fault in self._world.plan.faults:
                group.create_task(self._at_its_time(fault, began), name=f"fault-{fault.at}")
        self.done.sort(key=lambda each: each.began)

    async def _at_its_time(self, fault: Fault, began: float) -> None:
        await asyncio.sleep(max(0.0, began + fault.at - time.time()))
        if fault.kind is FaultKind.disk_full and sys.platform != "linux":
            self.skipped.append(fault)
            return
        async with self._locks.setdefault(fault.target, asyncio.Lock()) if _on_process(fault) else _nothing():
            start = time.time()
            self._on_fault(fault)
            await self._do(fault)
            target = "gateway" if fault.kind.startswith("broker-link-") else fault.target
            self.done.append(FaultDone(start, time.time(), fault.kind.value, target, str(fault).strip()))

    async def _do(self, fault: Fault) -> None:
        world = self._world
        match fault.kind:
            case FaultKind.gateway_kill:
                await world.gateway.kill()
                await asyncio.sleep(fault.seconds)
                await world.gateway.start()
            case FaultKind.broker_kill:
                assert world.broker is not None
                await world.broker.kill()
                await asyncio.sleep(fault.seconds)
                await world.broker.start()
            case FaultKind.gateway_pause | FaultKind.broker_pause:
                server = world.gateway if fault.kind is FaultKind.gateway_pause else world.broker
                assert server is not None
                server.pause()
                await asyncio.sleep(fault.seconds)
                server.resume()
            case FaultKind.client_kill | FaultKind.publisher_kill:
                await world.players[fault.target].kill()
                await asyncio.sleep(fault.seconds)
                await world.players[fault.target].start()
            case FaultKind.client_pause | FaultKind.publisher_pause:
                world.players[fault.target].signal(signal.SIGSTOP)
                await asyncio.sleep(fault.seconds)
                world.players[fault.target].signal(signal.SIGCONT)
            case FaultKind.change_transport:
                world.players[fault.target].tell(fault.word)
            case FaultKind.clock_jump:
                set_clock(world.clock, fault.amount)
                await asyncio.sleep(fault.seconds)
                set_clock(world.clock, 0.0)
            case FaultKind.disk_full:
                await self._fill_disk(fault.seconds)
            case _:
                await self._harm_link(fault)

    async def _fill_disk(self, seconds: float) -> None:
        import resource

        pid = self._world.gateway.pid
        soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (_NO_BYTES, hard))
        await asyncio.sleep(seconds)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))

    async def _harm_link(self, fault: Fault) -> None:
        link = self._world.links[fault.target]
        match fault.kind:
            case FaultKind.link_cut | FaultKind.broker_link_cut:
                await link.cut("rst" if fault.word == "rst" else "fin")
                return
            case FaultKind.link_blackhole | FaultKind.broker_link_blackhole:
                link.blackhole()
            case FaultKind.link_delay:
                link.delay(fault.amount)
            case FaultKind.link_slow:
                link.slow(fault.amount)
            case FaultKind.slow_reader:
                link.slow(fault.amount, "to_client")
            case FaultKind.link_refuse:
                link.refuse()
                await link.cut("rst")
        await asyncio.sleep(fault.seconds)
        if fault.word == "cut":
            await link.cut("rst")
        link.restore()


def _on_process(fault: Fault) -> bool:
    """Whether the fault is done to a process, one at a time: a restart may take longer than planned."""
    return "link" not in fault.kind and fault.kind not in (FaultKind.slow_reader, FaultKind.clock_jump)


class _Nothing(AbstractAsyncContextManager[None]):
    async def __aexit__(self, *exc_info: object) -> None:
        return None


def _nothing() -> AbstractAsyncContextManager[None]:
    return _Nothing()
