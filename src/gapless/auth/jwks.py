"""A key set at a URL (RFC 7517 §5): fetched, kept for as long as it says, fetched anew for a key that is unknown."""

from __future__ import annotations

import asyncio
import logging
import re
import time as _time
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import msgspec

from gapless.auth.fetch import FetchFailed, fetch
from gapless.auth.keys import Key, keys_from_jwks
from gapless.auth.options import AuthOptions

logger = logging.getLogger("gapless.auth")

_TIMEOUT = 5.0
_LIMIT = 256 << 10
_MAX_AGE = re.compile(r"(?:^|[\s,])max-age=(\d{1,10})(?:$|[\s,])")
_decode = msgspec.json.Decoder().decode


class KeySet:
    """The published keys. While they cannot be fetched, those known go on.

    Args:
        use: told the keys, at each fetch.
        clock: seconds that never go back.

    Attributes:
        counts: `fetched` and `failed`.
        problem: why the last fetch failed; empty where it did not.
    """

    def __init__(
        self, options: AuthOptions, use: Callable[[list[Key]], None], *, clock: Callable[[], float] = _time.monotonic
    ) -> None:
        assert options.jwks_url is not None
        self._url = options.jwks_url
        self._options = options
        self._use = use
        self._clock = clock
        self._client = httpx.AsyncClient(timeout=_TIMEOUT)
        self._fetching: asyncio.Task[None] | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._asked_at = float("-inf")
        self._life = options.jwks_refresh
        self.counts = {"fetched": 0, "failed": 0}
        self.problem = "not fetched yet"

    async def start(self) -> None:
        """Fetch the keys, and go on doing so. A failure is no reason not to start."""
        await self._fetch_once()
        self._refreshing = asyncio.create_task(self._refresh(), name="jwks")

    async def stop(self) -> None:
        """Stop fetching."""
        for task in (self._refreshing, self._fetching):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        await self._client.aclose()

    async def look_again(self) -> bool:
        """For a token whose key is unknown: fetch the keys, unless that was done a moment ago.

        Returns:
            Whether they were fetched; many callers share one fetch.
        """
        if self._fetching is None and self._clock() - self._asked_at < self._options.jwks_refresh:
            return False
        fetched = self.counts["fetched"]
        await self._fetch_once()
        return self.counts["fetched"] > fetched

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(max(self._life if not self.problem else self._options.jwks_refresh, 1.0))
            await self._fetch_once()

    async def _fetch_once(self) -> None:
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch(), name="jwks-fetch")
        await asyncio.shield(self._fetching)

    async def _fetch(self) -> None:
        self._asked_at = self._clock()
        try:
            async with asyncio.timeout(2 * _TIMEOUT):
                answer = await fetch(self._client, "GET", self._url, limit=_LIMIT)
            keys = keys_from_jwks(_decode(answer.body), self._options.jwks_algorithms)
        except (FetchFailed, TimeoutError, ValueError, RecursionError) as error:
            self.counts["failed"] += 1
            self.problem = str(error) or "no answer in time"
            logger.warning("the key set could not be fetched; the keys known go on", extra={"reason": self.problem})
        else:
            self.counts["fetched"] += 1
            self.problem = "" if keys else "it holds no key that can be used"
            self._life = lifetime(answer.headers, self._options)
            self._use(keys)
        finally:
            self._fetching = None


def lifetime(headers: Mapping[str, Any], options: AuthOptions) -> float:
    """Seconds for which an answer is kept: what Cache-Control says (RFC 9111 §5.2.2), within the settings' bounds."""
    control = str(headers.get("cache-control", "")).lower()
    if "no-store" in control or "no-cache" in control:
        return options.jwks_refresh
    stated = _MAX_AGE.search(control)
    seconds = float(stated[1]) if stated else options.jwks_max_age
    return min(max(seconds, options.jwks_refresh), options.jwks_max_age)
