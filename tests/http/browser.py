"""A headless Chromium, driven over its DevTools protocol: enough to use our own page."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from gapless.testing import find_chromium

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)


class Tab:
    """One tab.

    Attributes:
        complaints: what the page reported: uncaught errors, refused resources, breaches of its policy.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self.complaints: list[str] = []
        self._socket = socket
        self._numbers = itertools.count(1)
        self._session: str | None = None
        self._target: str | None = None

    def another(self) -> Tab:
        """Another tab of this browser. Use one at a time: both read one socket."""
        other = Tab(self._socket)
        other._numbers = self._numbers
        return other

    async def close(self) -> None:
        """Close the tab at once, as a person does; the page is not asked."""
        target, self._target, self._session = self._target, None, None
        if target is None:
            return
        await self.call("Target.closeTarget", targetId=target)

    async def open(self, url: str, *, width: int = 1280, height: int = 900) -> None:
        """Make the tab and load a page."""
        self._session = None
        target = await self.call("Target.createTarget", url="about:blank")
        self._target = target["targetId"]
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        await self.call("Page.navigate", url=url)

    async def network(self, *, offline: bool) -> None:
        """Take the tab off the network, and put it back; the page's `online` and `offline` events follow."""
        await self.call(
            "Network.emulateNetworkConditions", offline=offline, latency=0, downloadThroughput=-1, uploadThroughput=-1
        )

    async def minimise(self) -> None:
        """Minimise the window: the page is hidden."""
        await self._window("minimized")

    async def restore(self) -> None:
        """Show the window again."""
        await self._window("normal")

    async def _window(self, state: str) -> None:
        window = await self.call("Browser.getWindowForTarget")
        await self.call("Browser.setWindowBounds", windowId=window["windowId"], bounds={"windowState": state})

    async def reload(self) -> None:
        """Load the page anew, and wait until that is done."""
        await self.run("window.isOld = true")
        await self.call("Page.reload")
        await self.until("!window.isOld && document.readyState === 'complete'")

    async def freeze(self) -> None:
        """Let no timer and no task of the page run, as a browser does with tabs that were hidden for long."""
        await self.call("Page.setWebLifecycleState", state="frozen")

    async def thaw(self) -> None:
        """End that; the page's `resume` event follows."""
        await self.call("Page.setWebLifecycleState", state="active")

    async def screenshot(self, path: Path) -> None:
        """Keep a picture of the page as PNG."""
        picture = await self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(picture["data"]))

    async def run(self, script: str) -> Any:
        """The value of a JavaScript expression, awaited."""
        answer = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def until(self, script: str) -> None:
        """Wait until a JavaScript expression is true, in this page or the one that takes its place."""
        look = (
            "new Promise((resolve) => { const look = () => { let met = false; "
            f"try {{ met = {script}; }} catch {{}} met ? resolve() : setTimeout(look, 20); }}; look(); }})"
        )
        while True:
            try:
                await self.run(look)
                return
            except AssertionError as error:
                if not re.search("navigated|context was destroyed|Cannot find context", str(error)):
                    raise

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command of the DevTools protocol."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        await self._socket.send(json.dumps(message))
        while True:
            answer = json.loads(await self._socket.recv())
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result
            if answer.get("method") == "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(answer["params"]["exceptionDetails"]))
            elif answer.get("method") == "Log.entryAdded" and answer["params"]["entry"]["level"] == "error":
                self.complaints.append(answer["params"]["entry"]["text"])


@asynccontextmanager
async def browser(folder: Path) -> AsyncIterator[Tab]:
    """A fresh browser with one tab, its profile in `folder`."""
    chromium = find_chromium()
    assert chromium is not None
    process = await asyncio.create_subprocess_exec(
        chromium, *_FLAGS, f"--user-data-dir={folder}", "about:blank", stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        while (found := re.search(rb"ws://\S+", line := await process.stderr.readline())) is None:
            assert line, "Chromium ended before it listened"
        draining = asyncio.create_task(process.stderr.read(), name="chromium-stderr")
        async with connect(found.group().decode(), max_size=None, proxy=None) as socket:
            yield Tab(socket)
        draining.cancel()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
