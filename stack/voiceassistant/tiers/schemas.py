"""Tables for events and sagas: outbox, inbox and journal, in the database of each service that needs them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from components import images
from components.links import Links
from components.node import Caller
from components.postgresql.schemas import DatabaseSchemas
from stack.model.call_graph import CallGraph
from stack.model.environments import Environment
from stack.model.settings import ROOT
from stack.model.tenant import Builder
from stack.voiceassistant import site
from stack.voiceassistant.stores import SCHEMAS, DeployedStore, Store, database_of, postgresql, schema_users

FILES = ROOT / "runtime" / "voice_saga" / "voice_saga" / "migrations" / "postgresql"
NIGHTLY = FILES.with_name("nightly.sql")
"""`FILES` and `NIGHTLY` are the runtime's own files, so the platform applies the schema that the runtime expects."""


def components(graph: CallGraph, environment: Environment, links: Links) -> Iterator[Builder]:
    """The schema jobs, for services with events or sagas."""
    database = postgresql(graph)
    users = tuple(schema_users(database))
    if database and users:
        yield partial(_schemas, environment, links, database, users)


def _schemas(environment: Environment, links: Links, database: Store, users: tuple[Caller, ...]) -> DatabaseSchemas:
    return DatabaseSchemas(
        name=SCHEMAS,
        namespace=site.DATA,
        host=database.address.service if isinstance(database, DeployedStore) else database.host,
        port=database.address.port,
        tls=database.tls,
        image=environment.third_party_image(images.POSTGRESQL),
        databases=tuple(database_of(user, database, environment) for user in users),
        nightly=NIGHTLY.read_text(),
        files={file.name: file.read_text() for file in sorted(FILES.glob("*.sql"))},
        links=links,
    )
