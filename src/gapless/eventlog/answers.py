"""Answering futures that their owners may have dropped or cancelled meanwhile."""

from __future__ import annotations

from asyncio import Future
from typing import Any


def resolve(future: Future[Any], result: object) -> None:
    """Give the result, unless the future is done (cancelled) already."""
    if not future.done():
        future.set_result(result)


def refuse(future: Future[Any], error: BaseException) -> None:
    """Give the error, unless the future is done (cancelled) already."""
    if not future.done():
        future.set_exception(error)
