"""A closed schema of the fields that we set in CloudNativePG's resources, transcribed from its CRDs.

Source: `config/crd/bases/postgresql.cnpg.io_{clusters,databases,poolers,scheduledbackups}.yaml` of
cloudnative-pg/cloudnative-pg 1.30, and `barmancloud.cnpg.io_objectstores.yaml` of cloudnative-pg/plugin-barman-cloud.
"""

from __future__ import annotations

from typing import Any

TEXT = {"type": "string"}
WHOLE = {"type": "integer"}
FLAG = {"type": "boolean"}
TEXTS = {"type": "array", "items": TEXT}
LABELS = {"type": "object", "additionalProperties": TEXT}
ANY = {"type": "object"}


def closed(required: str = "", **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": required.split(),
        "properties": properties,
    }


def one_of(*values: str) -> dict[str, Any]:
    return {"enum": list(values)}


def listed(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item}


NAMED = closed("name", name=TEXT)
STORAGE = closed(size=TEXT, resizeInUseVolumes=FLAG, storageClass=TEXT)
RESOURCES = closed(requests=LABELS, limits=LABELS)
PLUGIN = closed("name", name=TEXT, isWALArchiver=FLAG, parameters=LABELS)
SECRET_KEY = closed("name key", name=TEXT, key=TEXT)
ROLE = closed(
    "name",
    name=TEXT,
    ensure=one_of("present", "absent"),
    login=FLAG,
    superuser=FLAG,
    createdb=FLAG,
    createrole=FLAG,
    replication=FLAG,
    bypassrls=FLAG,
    connectionLimit=WHOLE,
    passwordSecret=NAMED,
)
COMPRESSED = closed(compression=one_of("bzip2", "gzip", "snappy", "zstd"), encryption=one_of("AES256", "aws:kms"))
SPECS = {
    "Cluster": closed(
        "instances",
        instances={"type": "integer", "minimum": 1},
        imageName=TEXT,
        imagePullPolicy=TEXT,
        imagePullSecrets=listed(NAMED),
        priorityClassName=TEXT,
        enableSuperuserAccess=FLAG,
        enablePDB=FLAG,
        primaryUpdateStrategy=one_of("unsupervised", "supervised"),
        primaryUpdateMethod=one_of("switchover", "restart"),
        stopDelay=WHOLE,
        bootstrap=closed(initdb=closed(database=TEXT, owner=TEXT, dataChecksums=FLAG), recovery=closed(source=TEXT)),
        externalClusters=listed(closed("name", name=TEXT, plugin=PLUGIN)),
        postgresql=closed(
            parameters=LABELS,
            pg_hba=TEXTS,
            synchronous=closed(
                "method number",
                method=one_of("any", "first"),
                number={"type": "integer", "exclusiveMinimum": 0},
                dataDurability=one_of("required", "preferred"),
            ),
        ),
        managed=closed(roles=listed(ROLE)),
        plugins=listed(PLUGIN),
        storage=STORAGE,
        walStorage=STORAGE,
        resources=RESOURCES,
        affinity=closed(enablePodAntiAffinity=FLAG, podAntiAffinityType=TEXT, topologyKey=TEXT),
        topologySpreadConstraints=listed(ANY),
        inheritedMetadata=closed(labels=LABELS),
    ),
    "Database": closed(
        "cluster name owner",
        cluster=NAMED,
        name=TEXT,
        owner=TEXT,
        ensure=one_of("present", "absent"),
        databaseReclaimPolicy=one_of("delete", "retain"),
    ),
    "Pooler": closed(
        "cluster pgbouncer",
        cluster=NAMED,
        instances=WHOLE,
        type=one_of("rw", "ro", "r"),
        pgbouncer=closed(poolMode=one_of("session", "transaction"), parameters=LABELS),
        deploymentStrategy=closed(type=TEXT, rollingUpdate=ANY),
        template=closed(metadata=ANY, spec=ANY),
    ),
    "ScheduledBackup": closed(
        "cluster schedule",
        cluster=NAMED,
        schedule={"type": "string", "pattern": r"^(\S+ ){5}\S+$"},
        immediate=FLAG,
        backupOwnerReference=one_of("none", "self", "cluster"),
        method=one_of("barmanObjectStore", "volumeSnapshot", "plugin"),
        pluginConfiguration=closed("name", name=TEXT),
    ),
    "ObjectStore": closed(
        "configuration",
        retentionPolicy={"type": "string", "pattern": "^[1-9][0-9]*[dwm]$"},
        configuration=closed(
            "destinationPath",
            destinationPath={"type": "string", "minLength": 1},
            endpointURL=TEXT,
            s3Credentials=closed(accessKeyId=SECRET_KEY, secretAccessKey=SECRET_KEY),
            wal=COMPRESSED,
            data=COMPRESSED,
        ),
        instanceSidecarConfiguration=closed(resources=RESOURCES),
    ),
}
