"""Outbox, inbox and journal: tables in the database of each service with events or sagas."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from voice_policies import Fault, InvalidInputError

from components import images
from components.links import Links
from components.node import Caller, External
from components.postgresql.schemas import DatabaseSchemas
from stack.model.call_graph import CallGraph
from stack.model.environments import Environment
from stack.model.links import external_stores
from stack.model.settings import ROOT, file_of, path_of
from stack.model.tenant import Builder
from stack.voiceassistant import site
from stack.voiceassistant.catalog.dependencies import POSTGRESQL
from stack.voiceassistant.stores import SCHEMAS, DeployedStore, Store, database_of, postgresql, schema_users

FILES = ROOT / "runtime" / "voice_saga" / "voice_saga" / "migrations" / "postgresql"
NIGHTLY = FILES.with_name("nightly.sql")
"""`FILES` and `NIGHTLY` are the runtime's own files, so the platform applies the schema that the runtime expects."""


def components(graph: CallGraph, environment: Environment, links: Links) -> Iterator[Builder]:
    """The schema jobs, for services with events or sagas."""
    _refuse_unread_authorities(graph, environment)
    database = postgresql(graph)
    users = tuple(schema_users(database))
    if database and users:
        yield partial(_schemas, environment, links, database, users)


def _refuse_unread_authorities(graph: CallGraph, environment: Environment) -> None:
    """Raise for certificate authorities of a store other than PostgreSQL, because nothing would read them."""
    faults = [
        Fault(path_of(f"external.{dependency.name}.certificate_authorities"), "is not read", "leave it out")
        for dependency, address in external_stores(graph)
        if address.certificate_authorities and dependency.name != POSTGRESQL.name
    ]
    if faults:
        raise InvalidInputError(file_of(environment.name), faults)


def _schemas(environment: Environment, links: Links, database: Store, users: tuple[Caller, ...]) -> DatabaseSchemas:
    address = database.address
    return DatabaseSchemas(
        name=SCHEMAS,
        namespace=site.DATA,
        host=database.address.service if isinstance(database, DeployedStore) else database.host,
        port=address.port,
        tls=database.tls,
        certificate_authorities=address.certificate_authorities if isinstance(address, External) else None,
        # Both images have psql. Only the image of CloudNativePG has certificate authorities.
        image=environment.third_party_image(images.POSTGRESQL_OPERAND if database.tls else images.POSTGRESQL),
        databases=tuple(database_of(user, database, environment) for user in users),
        nightly=NIGHTLY.read_text(),
        files={file.name: file.read_text() for file in sorted(FILES.glob("*.sql"))},
        links=links,
    )
