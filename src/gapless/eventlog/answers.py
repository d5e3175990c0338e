"""Answering those who wait for the log, who may have dropped or cancelled their future meanwhile."""

from __future__ import annotations

import logging
from asyncio import CancelledError, Future
from typing import Any

from gapless.event import Record
from gapless.eventlog.contract import Answer

logger = logging.getLogger("gapless.eventlog")


def resolve(future: Future[Any], result: object) -> None:
    """Give the result, unless the future is done (cancelled) already."""
    if not future.done():
        future.set_result(result)


def outcome(done: Future[Any]) -> BaseException | None:
    """The error of a future that is done, cancelled ones included; None where all went well."""
    return CancelledError() if done.cancelled() else done.exception()


def tell(stored: list[tuple[Answer, Record, bool]]) -> None:
    """Tell everyone whose event is stored, in order; the last of each says whether it was there before."""
    for answer, record, duplicate in stored:
        try:
            answer.stored(record, duplicate=duplicate)
        except Exception:  # a defect with one publisher must not cost the others their answers
            logger.exception("a publisher could not be told that its event is stored")


def refuse(waiting: Future[Any] | Answer, error: BaseException) -> None:
    """Give the error, unless a future is done (cancelled) already."""
    if not isinstance(waiting, Future):
        try:
            waiting.refused(error)
        except Exception:
            logger.exception("a publisher could not be told that its event was refused")
    elif not waiting.done():
        waiting.set_exception(error)
