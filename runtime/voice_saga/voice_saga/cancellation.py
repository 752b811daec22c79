"""Cancellations that other code hides."""

from __future__ import annotations

import asyncio


def end_if_cancelled() -> None:
    """Raise `CancelledError` if the current task was cancelled and other code has hidden the cancellation.

    asyncpg, Temporal's client and actions of a service may raise another error in place of `CancelledError`. redis-py
    uses `asyncio.wait_for`. Before Python 3.12 this function swallows a cancellation that happens together with its
    timeout.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError from None
