"""PostgreSQL for staging and prod: a CloudNativePG cluster of three or more instances, a pooler and backups."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field
from typing_extensions import override
from voice_policies import Bytes

from components.component import Component, Exemption
from components.container import PULL_POLICY, Image, cpu_and_memory, pull_secrets
from components.disruption_budget import disruption_budget
from components.links import PlatformLinks
from components.node import Sizing
from components.operation import Name
from components.placement import HOST, host_anti_affinity, zone_spread
from components.postgresql.backups import CREDENTIALS, DAILY, Backups
from components.postgresql.databases import ServerLimits, ServiceDatabase, access_rules
from components.priority import Priority, priority_class
from components.scrape import Scrape
from components.secret_keys import SecretKeys
from components.writes import Disk, Write

if TYPE_CHECKING:
    from components.component import Resource
    from components.kubernetes.cloudnative_pg import (
        Bootstrap,
        Cluster,
        Database,
        ManagedRole,
        ObjectStore,
        Plugin,
        Pooler,
        ScheduledBackup,
        Storage,
    )
    from components.kubernetes.types import PodSpec

__all__ = ["PostgresqlCluster"]

BARMAN = "barman-cloud.cloudnative-pg.io"
STOP_SECONDS = 120
WAL_STORAGE = Bytes("10Gi")
MAX_WAL = Bytes("2Gi")
LARGEST_SLOT = Bytes("4Gi")
"""Largest log that the primary keeps for a disconnected replica. PostgreSQL's default is no limit. If a replica needs
an older log, the operator clones the replica again."""
WAL_KEPT = Bytes("512Mi")
"""CloudNativePG's default of `wal_keep_size`."""
PREPARED_STATEMENTS = 100
"""Prepared statements that the pooler keeps on each server connection. With 0, drivers that prepare statements fail in
transaction mode."""
SIDECAR = Sizing.of(cpu=("100m", "500m"), memory=("256Mi", "512Mi"))
POOLER = Sizing.of(cpu=("100m", "500m"), memory=("128Mi", "128Mi"))


class PostgresqlCluster(Component):
    """A replicated cluster.

    If one instance is lost, no acknowledged write is lost: two disks hold a write before it is acknowledged.
    While the primary has no replica, writes wait. A failover takes about 30 s. Meanwhile clients see errors.
    """

    folder: ClassVar[str] = "20-data"
    priority: ClassVar[Priority] = "foundation"
    exemptions: ClassVar[tuple[Exemption, ...]] = (
        Exemption(rule="run_as_user", reason="the operator runs PostgreSQL as user 26 and PgBouncer as user 998"),
        Exemption(rule="no_api_token", reason="the instance manager in each pod watches its Cluster resource"),
    )
    instance_scrape: ClassVar[Scrape] = Scrape(port=9187, health="cnpg_collector_up")
    """The scrape of CloudNativePG's instance manager."""
    pooler_scrape: ClassVar[Scrape] = Scrape(port=9127)
    pooler: Name
    store_label: str
    image: Image
    pooler_image: Image
    instances: Annotated[int, Field(ge=3)]
    """One primary and at least two replicas. A write waits for one replica. If an instance is lost, writes continue."""
    sizing: Sizing
    storage: Bytes
    storage_class: Name | None = None
    """Class of the volumes; `None` is the default of the Kubernetes cluster."""
    limits: ServerLimits
    databases: tuple[ServiceDatabase, ...]
    poolers: int
    pool_size: int
    """Server connections of one pooler to each database."""
    max_client_connections: int
    """Client connections of one pooler."""
    backups: Backups
    store_url: str
    links: PlatformLinks

    @property
    @override
    def secrets(self) -> tuple[SecretKeys, ...]:
        """The backup credentials of the operator, and the password of each role."""
        return (CREDENTIALS, *(database.secret for database in self.databases))

    @property
    @override
    def pods(self) -> tuple[dict[str, str], ...]:
        """Instances and poolers, distinguished by `store_label`."""
        return {self.store_label: self.name}, {self.store_label: self.pooler}

    @override
    def conflicts(self) -> Iterator[str]:
        servers = self.poolers * self.pool_size
        for database in self.databases:
            if database.connection_limit < servers:
                yield (
                    f"{database.name}: connection_limit {database.connection_limit} is below the {servers} "
                    f"connections of {self.poolers} poolers with pool_size {self.pool_size}"
                )

    @override
    def disks(self) -> Iterator[Disk]:
        """Only the volume of the write-ahead log. The databases have no declared size: they have an alert instead."""
        writes = (
            Write("wal", MAX_WAL, "write-ahead log between two checkpoints"),
            Write("wal", LARGEST_SLOT, "log kept for a disconnected replica"),
            Write("wal", WAL_KEPT, "log kept for replicas (wal_keep_size)"),
        )
        yield Disk(f"{self.namespace}/{self.name} volume wal", WAL_STORAGE, persistent=True, writes=writes)

    @override
    def resources(self) -> Iterator[Resource]:
        instances, poolers = self.pods
        yield self.links.network_policy(self.metadata(), instances)
        yield self.links.network_policy(self.metadata("pooler"), poolers)
        yield self._object_store()
        yield self._cluster()
        yield from map(self._database, self.databases)
        yield self._pooler()
        yield disruption_budget(self.metadata("pooler"), poolers)
        yield self._scheduled_backup()

    def _cluster(self) -> Cluster:
        cluster: Cluster = {
            "apiVersion": "postgresql.cnpg.io/v1",
            "kind": "Cluster",
            "metadata": self.metadata(),
            "spec": {
                "instances": self.instances,
                "imageName": self.image.reference,
                "imagePullPolicy": PULL_POLICY,
                "enableSuperuserAccess": False,
                "enablePDB": True,
                "primaryUpdateStrategy": "unsupervised",
                "primaryUpdateMethod": "switchover",
                "stopDelay": STOP_SECONDS,
                "bootstrap": self._bootstrap(),
                "postgresql": {
                    "parameters": self._parameters(),
                    "pg_hba": access_rules("hostssl"),
                    "synchronous": {"method": "any", "number": 1, "dataDurability": "required"},
                },
                "managed": {"roles": [_role(database) for database in self.databases]},
                "plugins": [{**self._archive(self.name), "isWALArchiver": True}],
                "storage": self._volume(self.storage),
                "walStorage": self._volume(WAL_STORAGE),
                "priorityClassName": priority_class(self.priority),
                "resources": cpu_and_memory(self.sizing),
                "affinity": {
                    "enablePodAntiAffinity": True,
                    "podAntiAffinityType": "required",
                    "topologyKey": HOST,
                },
                "topologySpreadConstraints": [zone_spread(self.pods[0])],
                "inheritedMetadata": {"labels": self.pods[0]},
            },
        }
        if secrets := pull_secrets([self.image]):
            cluster["spec"]["imagePullSecrets"] = secrets
        if self.backups.recover_from:
            cluster["spec"]["externalClusters"] = [
                {"name": self.backups.recover_from, "plugin": self._archive(self.backups.recover_from)}
            ]
        return cluster

    def _volume(self, size: Bytes) -> Storage:
        volume: Storage = {"size": str(size), "resizeInUseVolumes": True}
        return {**volume, "storageClass": self.storage_class} if self.storage_class else volume

    def _bootstrap(self) -> Bootstrap:
        # The operator requires a database and its owner, here `app`. No service uses them: each has its own database.
        if self.backups.recover_from:
            return {"recovery": {"source": self.backups.recover_from}}
        return {"initdb": {"database": "app", "owner": "app", "dataChecksums": True}}

    def _archive(self, server: str) -> Plugin:
        return {"name": BARMAN, "parameters": {"barmanObjectName": self.name, "serverName": server}}

    def _parameters(self) -> dict[str, str]:
        return {
            **self.limits.parameters(),
            "shared_buffers": f"{self.sizing.memory_limit.units // 4 // 1024**2}MB",
            "log_connections": "authorization",
            "max_wal_size": f"{MAX_WAL.units >> 20}MB",
            "max_slot_wal_keep_size": f"{LARGEST_SLOT.units >> 20}MB",
        }

    def _database(self, database: ServiceDatabase) -> Database:
        return {
            "apiVersion": "postgresql.cnpg.io/v1",
            "kind": "Database",
            "metadata": {**self.metadata(), "name": database.name},
            "spec": {
                "cluster": {"name": self.name},
                "name": database.name,
                "owner": database.name,
                "ensure": "present",
                "databaseReclaimPolicy": "retain",
            },
        }

    def _pooler(self) -> Pooler:
        """A rollout stops old pods first, because an additional pod would exceed the roles' connection limits."""
        _, labels = self.pods
        return {
            "apiVersion": "postgresql.cnpg.io/v1",
            "kind": "Pooler",
            "metadata": {**self.metadata(), "name": self.pooler},
            "spec": {
                "cluster": {"name": self.name},
                "instances": self.poolers,
                "type": "rw",
                "pgbouncer": {
                    "poolMode": "transaction",
                    "parameters": {
                        "default_pool_size": str(self.pool_size),
                        "max_db_connections": str(self.pool_size),
                        "max_client_conn": str(self.max_client_connections),
                        "max_prepared_statements": str(PREPARED_STATEMENTS),
                    },
                },
                "deploymentStrategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1},
                },
                "template": {
                    "metadata": {"labels": labels},
                    "spec": self._pooler_pod(labels),
                },
            },
        }

    def _pooler_pod(self, labels: dict[str, str]) -> PodSpec:
        pod: PodSpec = {
            "containers": [
                {
                    "name": "pgbouncer",
                    "image": self.pooler_image.reference,
                    "imagePullPolicy": PULL_POLICY,
                    "resources": cpu_and_memory(POOLER),
                }
            ],
            "affinity": host_anti_affinity(labels, required=True),
            "priorityClassName": priority_class(self.priority),
        }
        if secrets := pull_secrets([self.pooler_image]):
            pod["imagePullSecrets"] = secrets
        return pod

    def _object_store(self) -> ObjectStore:
        access, secret = CREDENTIALS.keys
        return {
            "apiVersion": "barmancloud.cnpg.io/v1",
            "kind": "ObjectStore",
            "metadata": self.metadata(),
            "spec": {
                "retentionPolicy": self.backups.retention,
                "configuration": {
                    "destinationPath": f"s3://{self.backups.bucket}/",
                    "endpointURL": self.store_url,
                    "s3Credentials": {
                        "accessKeyId": {"name": CREDENTIALS.name, "key": access},
                        "secretAccessKey": {"name": CREDENTIALS.name, "key": secret},
                    },
                    "wal": {"compression": "gzip", "encryption": "AES256"},
                    "data": {"compression": "gzip", "encryption": "AES256"},
                },
                "instanceSidecarConfiguration": {"resources": cpu_and_memory(SIDECAR)},
            },
        }

    def _scheduled_backup(self) -> ScheduledBackup:
        return {
            "apiVersion": "postgresql.cnpg.io/v1",
            "kind": "ScheduledBackup",
            "metadata": self.metadata(),
            "spec": {
                "cluster": {"name": self.name},
                "schedule": DAILY,
                "immediate": True,
                "backupOwnerReference": "self",
                "method": "plugin",
                "pluginConfiguration": {"name": BARMAN},
            },
        }


def _role(database: ServiceDatabase) -> ManagedRole:
    return {
        "name": database.name,
        "ensure": "present",
        "login": True,
        "superuser": False,
        "createdb": False,
        "createrole": False,
        "replication": False,
        "bypassrls": False,
        "connectionLimit": database.connection_limit,
        "passwordSecret": {"name": database.secret.name},
    }
