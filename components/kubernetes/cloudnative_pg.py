"""Types of the custom resources of CloudNativePG and its Barman Cloud plugin. mypy refuses fields that are not here.

Sources: the operator's CustomResourceDefinitions, `config/crd/bases/postgresql.cnpg.io_*.yaml` of
cloudnative-pg/cloudnative-pg 1.30, and `config/crd/bases/barmancloud.cnpg.io_objectstores.yaml` of
cloudnative-pg/plugin-barman-cloud.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from components.kubernetes.types import (
    DeploymentStrategy,
    LocalObjectReference,
    ObjectMeta,
    PodSpec,
    ResourceRequirements,
    TopologySpreadConstraint,
)

GROUP_VERSION = "postgresql.cnpg.io/v1"


class Named(TypedDict):
    name: str


class Storage(TypedDict):
    size: str
    resizeInUseVolumes: bool
    storageClass: NotRequired[str]


class Synchronous(TypedDict):
    method: Literal["any", "first"]
    number: int
    dataDurability: Literal["required", "preferred"]


class Postgresql(TypedDict):
    parameters: dict[str, str]
    pg_hba: list[str]
    synchronous: Synchronous


class ManagedRole(TypedDict):
    name: str
    ensure: Literal["present"]
    login: bool
    superuser: bool
    createdb: bool
    createrole: bool
    replication: bool
    bypassrls: bool
    connectionLimit: int
    passwordSecret: Named


class Managed(TypedDict):
    roles: list[ManagedRole]


class Plugin(TypedDict):
    name: str
    isWALArchiver: NotRequired[bool]
    parameters: dict[str, str]


class InitDb(TypedDict):
    database: str
    owner: str
    dataChecksums: bool


class Recovery(TypedDict):
    source: str


class Bootstrap(TypedDict, total=False):
    initdb: InitDb
    recovery: Recovery


class ExternalCluster(TypedDict):
    name: str
    plugin: Plugin


class InstanceAffinity(TypedDict):
    enablePodAntiAffinity: bool
    podAntiAffinityType: Literal["required", "preferred"]
    topologyKey: str


class InheritedMetadata(TypedDict):
    labels: dict[str, str]


class ClusterSpec(TypedDict):
    instances: int
    imageName: str
    imagePullPolicy: str
    imagePullSecrets: NotRequired[list[LocalObjectReference]]
    enableSuperuserAccess: bool
    enablePDB: bool
    primaryUpdateStrategy: Literal["unsupervised", "supervised"]
    primaryUpdateMethod: Literal["switchover", "restart"]
    stopDelay: int
    bootstrap: Bootstrap
    externalClusters: NotRequired[list[ExternalCluster]]
    postgresql: Postgresql
    managed: Managed
    plugins: list[Plugin]
    storage: Storage
    walStorage: Storage
    resources: ResourceRequirements
    priorityClassName: str
    affinity: InstanceAffinity
    topologySpreadConstraints: list[TopologySpreadConstraint]
    inheritedMetadata: InheritedMetadata


class Cluster(TypedDict):
    apiVersion: Literal["postgresql.cnpg.io/v1"]
    kind: Literal["Cluster"]
    metadata: ObjectMeta
    spec: ClusterSpec


class DatabaseSpec(TypedDict):
    cluster: Named
    name: str
    owner: str
    ensure: Literal["present"]
    databaseReclaimPolicy: Literal["retain", "delete"]


class Database(TypedDict):
    apiVersion: Literal["postgresql.cnpg.io/v1"]
    kind: Literal["Database"]
    metadata: ObjectMeta
    spec: DatabaseSpec


class PgBouncer(TypedDict):
    poolMode: Literal["session", "transaction"]
    parameters: dict[str, str]


class PoolerTemplate(TypedDict):
    metadata: ObjectMeta
    spec: PodSpec


class PoolerSpec(TypedDict):
    cluster: Named
    instances: int
    type: Literal["rw", "ro"]
    pgbouncer: PgBouncer
    deploymentStrategy: DeploymentStrategy
    template: PoolerTemplate


class Pooler(TypedDict):
    apiVersion: Literal["postgresql.cnpg.io/v1"]
    kind: Literal["Pooler"]
    metadata: ObjectMeta
    spec: PoolerSpec


class PluginConfiguration(TypedDict):
    name: str


class ScheduledBackupSpec(TypedDict):
    cluster: Named
    schedule: str
    immediate: bool
    backupOwnerReference: Literal["none", "self", "cluster"]
    method: Literal["plugin"]
    pluginConfiguration: PluginConfiguration


class ScheduledBackup(TypedDict):
    apiVersion: Literal["postgresql.cnpg.io/v1"]
    kind: Literal["ScheduledBackup"]
    metadata: ObjectMeta
    spec: ScheduledBackupSpec


class SecretKey(TypedDict):
    name: str
    key: str


class S3Credentials(TypedDict):
    accessKeyId: SecretKey
    secretAccessKey: SecretKey


class WalConfiguration(TypedDict):
    compression: Literal["gzip", "zstd"]
    encryption: Literal["AES256", "aws:kms"]


class DataConfiguration(TypedDict):
    compression: Literal["gzip", "snappy"]
    encryption: Literal["AES256", "aws:kms"]


class StoreConfiguration(TypedDict):
    destinationPath: str
    endpointURL: str
    s3Credentials: S3Credentials
    wal: WalConfiguration
    data: DataConfiguration


class SidecarConfiguration(TypedDict):
    resources: ResourceRequirements


class ObjectStoreSpec(TypedDict):
    retentionPolicy: str
    configuration: StoreConfiguration
    instanceSidecarConfiguration: SidecarConfiguration


class ObjectStore(TypedDict):
    apiVersion: Literal["barmancloud.cnpg.io/v1"]
    kind: Literal["ObjectStore"]
    metadata: ObjectMeta
    spec: ObjectStoreSpec
