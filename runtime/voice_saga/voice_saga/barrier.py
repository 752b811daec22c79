"""The barrier: applies the effect of a step exactly once, in the step's own transaction.

| call | effect |
|---|---|
| the same action or compensation again (idempotence) | none; returns the result of the first call |
| a compensation whose action never ran (empty compensation) | none; a later action is refused |
| an action after its compensation (hanging) | none; raises `BarrierClosedError` |

    async def reserve(context: StepContext) -> int:
        async with pool.acquire() as connection:
            return await once(connection, context, lambda: insert_reservation(connection, context.input))

The table of the barrier is in the database to which the step writes (`migrations/*/0003_barriers.sql`), so barrier and
effect commit together. A compensation waits until the transaction of its action has ended.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from voice_saga.context import Branch, StepContext, to_json
from voice_saga.errors import BarrierClosedError

if TYPE_CHECKING:
    from voice_saga.postgresql import Connection  # the driver is an extra

__all__ = ["once", "once_sqlite"]

_INSERT = (
    "INSERT INTO {table} (saga_id, step, branch, origin) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING RETURNING 1"
)
_SELECT = "SELECT origin, result FROM {table} WHERE saga_id = $1 AND step = $2 AND branch = $3"
_RESULT = "UPDATE {table} SET result = $4 WHERE saga_id = $1 AND step = $2 AND branch = $3"
INSERT, SELECT, RESULT = (text.format(table="saga.barriers") for text in (_INSERT, _SELECT, _RESULT))
INSERT_SQLITE, SELECT_SQLITE, RESULT_SQLITE = (
    text.format(table="barriers").replace("$", "?") for text in (_INSERT, _SELECT, _RESULT)
)


async def once(
    connection: Connection,
    context: StepContext,
    work: Callable[[], Awaitable[Any]],
) -> Any:
    """Run `work`, if it has not run yet, and mark it as done, in one transaction. Returns the result of `work`.

    If `connection` is already in a transaction, that transaction is used.
    """
    async with connection.transaction():
        if context.branch == "compensation" and await connection.fetchval(INSERT, *_key(context, "action")):
            return None
        if not await connection.fetchval(INSERT, *_key(context, context.branch)):
            return _before(await connection.fetchrow(SELECT, *_key(context, context.branch)[:3]), context)
        if _came_first(await connection.fetchrow(SELECT, *_key(context, "action")[:3]), context):
            return None
        result = await work()
        await connection.execute(RESULT, *_key(context, context.branch)[:3], to_json(result, "a result"))
        return result


def once_sqlite(connection: sqlite3.Connection, context: StepContext, work: Callable[[], Any]) -> Any:
    """Like `once`, for SQLite. One commit covers the open changes of the connection, `work` and the mark."""
    with connection:
        if not connection.in_transaction:
            connection.execute("BEGIN IMMEDIATE")

        def first(statement: str, branch: Branch, count: int) -> Any:
            return connection.execute(statement, _key(context, branch)[:count]).fetchone()

        if context.branch == "compensation" and first(INSERT_SQLITE, "action", 4):
            return None
        if not first(INSERT_SQLITE, context.branch, 4):
            return _before(first(SELECT_SQLITE, context.branch, 3), context)
        if _came_first(first(SELECT_SQLITE, "action", 3), context):
            return None
        result = work()
        connection.execute(RESULT_SQLITE, (*_key(context, context.branch)[:3], to_json(result, "a result")))
        return result


def _key(context: StepContext, branch: Branch) -> tuple[str, str, str, str]:
    return context.saga_id, context.step, branch, context.branch


def _before(row: Any, context: StepContext) -> Any:
    """The result of the first call. Raises `BarrierClosedError` if that call was the compensation."""
    if row[0] != context.branch:
        raise BarrierClosedError(f"{context.idempotency_key}: the step was compensated before its action arrived")
    return None if row[1] is None else json.loads(row[1])


def _came_first(action: Any, context: StepContext) -> bool:
    """True if the compensation came first, so that the action never ran."""
    return context.branch == "compensation" and bool(action[0] == "compensation")
