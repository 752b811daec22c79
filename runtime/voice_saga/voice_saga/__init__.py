"""Sagas: business transactions over several services. A crash does not end a saga, and a failed saga is undone.

indexing = Definition(policy, {"embed": embed, "forget-embeddings": forget_embeddings, ...})
async with JournalEngine(PostgresqlJournal(dsn), [indexing]) as engine:
    saga_id = await engine.start("document-indexing", {"document": "42"})
"""

from voice_saga.context import Action, Branch, Message, Reply, StepContext
from voice_saga.definition import Definition
from voice_saga.engine import JournalEngine
from voice_saga.errors import (
    BarrierClosedError,
    DefinitionMismatchError,
    InvalidSagaIdError,
    JournalUnavailableError,
    LeaseLostError,
    MessagesRefusedError,
    NotJsonError,
    SagaConflictError,
    SagaError,
    TooLargeError,
    UnknownSagaError,
)
from voice_saga.journal import Journal
from voice_saga.progress import Entry, EntryKind, State
from voice_saga.record import Engine, SagaRecord, SagaSummary
from voice_saga.sqlite import SqliteJournal

__all__ = [
    "Action",
    "BarrierClosedError",
    "Branch",
    "Definition",
    "DefinitionMismatchError",
    "Engine",
    "Entry",
    "EntryKind",
    "InvalidSagaIdError",
    "Journal",
    "JournalEngine",
    "JournalUnavailableError",
    "LeaseLostError",
    "Message",
    "MessagesRefusedError",
    "NotJsonError",
    "Reply",
    "SagaConflictError",
    "SagaError",
    "SagaRecord",
    "SagaSummary",
    "SqliteJournal",
    "State",
    "StepContext",
    "TooLargeError",
    "UnknownSagaError",
]
