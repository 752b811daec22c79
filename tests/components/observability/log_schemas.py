"""Closed schemas of the Elasticsearch 9.5, Kibana 9.5 and Fluent Bit 5.1 fields that we set.

Sources:
- Elasticsearch: the reference of its settings (cluster formation, networking, security, `node.store.allow_mmap`,
  `readiness.port`), and the reference of the APIs that `elasticsearch_setup` calls.
- Kibana: `config/kibana.yml`, the reference of its settings, and the reference of the data views API.
- Fluent Bit's documentation: the pages `yaml/service-section.md`, `inputs/tail.md`, `filters/kubernetes.md`,
  `filters/modify.md`, `administration/scheduling-and-retries.md` and `pipeline/buffering.md`.
- The output `opentelemetry` of Fluent Bit: the `config_map` in plugins/out_opentelemetry/opentelemetry.c, because the
  documentation of this plugin is incomplete.
"""

from __future__ import annotations

from tests.closed_schema import (
    COUNT,
    FLAG,
    PATH,
    PORT,
    SPAN_OF_TIME,
    TEXT,
    URL,
    ZERO_OR_MORE,
    Schema,
    closed,
    listed,
    one_of,
)

SWITCH = one_of("on", "off")
SIZE: Schema = {"type": "string", "pattern": r"^\d+[kMG]$"}
TRANSPORT = "xpack.security.transport.ssl"
SHARED: dict[str, Schema] = {
    "cluster.name": TEXT,
    "node.name": TEXT,
    "network.host": TEXT,
    "network.publish_host": TEXT,
    "http.port": PORT,
    "transport.port": PORT,
    "readiness.port": PORT,
    "node.store.allow_mmap": {"const": False},
    "xpack.security.enabled": {"const": True},
    "xpack.security.http.ssl.enabled": FLAG,
    "xpack.ml.enabled": FLAG,
}
ELASTICSEARCH: Schema = {
    "oneOf": [
        closed({**SHARED, "discovery.type": one_of("single-node")}),
        closed(
            {
                **SHARED,
                "discovery.seed_hosts": listed(TEXT),
                f"{TRANSPORT}.enabled": {"const": True},
                f"{TRANSPORT}.verification_mode": one_of("full", "certificate"),
                f"{TRANSPORT}.certificate": TEXT,
                f"{TRANSPORT}.key": TEXT,
                f"{TRANSPORT}.certificate_authorities": listed(TEXT),
            }
        ),
    ]
}
ROLLOVER = closed({"max_age": SPAN_OF_TIME, "max_primary_shard_size": {"type": "string", "pattern": r"^\d+[mg]b$"}})
LIFECYCLE = closed(
    {
        "policy": closed(
            {
                "phases": closed(
                    {"delete": closed({"min_age": SPAN_OF_TIME, "actions": closed({"delete": closed({})})})},
                    {"hot": closed({"min_age": SPAN_OF_TIME, "actions": closed({"rollover": ROLLOVER})})},
                )
            }
        )
    }
)
INDEX_SETTINGS = closed(
    {
        "index.lifecycle.name": TEXT,
        "index.number_of_shards": COUNT,
        "index.number_of_replicas": ZERO_OR_MORE,
        "index.codec": one_of("default", "best_compression"),
    }
)
INDEX_PRIVILEGES = listed(
    one_of("read", "write", "create_index", "create_doc", "auto_configure", "view_index_metadata", "manage")
)
ROLE = closed(
    {
        "cluster": {"type": "array", "items": one_of("monitor", "manage_index_templates")},
        "indices": {"type": "array", "items": closed({"names": listed(TEXT), "privileges": INDEX_PRIVILEGES})},
        "applications": {
            "type": "array",
            "items": closed(
                {
                    "application": one_of("kibana-.kibana"),
                    "privileges": listed(one_of("feature_indexPatterns.all")),
                    "resources": listed(one_of("space:default")),
                }
            ),
        },
    }
)
WORDS = closed(
    {
        "attributes_are_words": closed(
            {
                "path_match": TEXT,
                "match_mapping_type": one_of("string"),
                "mapping": closed({"type": one_of("keyword"), "ignore_above": COUNT}),
            }
        )
    }
)
REQUESTS: dict[str, Schema] = {
    "/_ilm/policy/": LIFECYCLE,
    "/_component_template/": closed(
        {"template": closed({"settings": INDEX_SETTINGS, "mappings": closed({"dynamic_templates": listed(WORDS)})})}
    ),
    "/_security/role/": ROLE,
    "/_security/user/kibana_system/_password": closed({"password": TEXT}),
    "/_security/user/": closed({"password": TEXT, "roles": listed(TEXT)}),
    "/jaeger-*/_settings": closed({"index.lifecycle.name": TEXT}),
    "/api/data_views/data_view": closed(
        {
            "override": FLAG,
            "data_view": closed({"id": TEXT, "name": TEXT, "title": TEXT, "timeFieldName": one_of("@timestamp")}),
        }
    ),
}
"""The schema of each request's body, by the start of its path. The first match applies."""
KIBANA = closed(
    {
        "server.name": TEXT,
        "server.host": TEXT,
        "server.port": PORT,
        "elasticsearch.hosts": listed(URL),
        "elasticsearch.username": TEXT,
        "path.data": PATH,
        "telemetry.optIn": FLAG,
        "newsfeed.enabled": FLAG,
        "logging.root.level": one_of("debug", "info", "warn", "error"),
        "logging.root.appenders": listed(one_of("json")),
        "logging.appenders.json": closed({"type": one_of("console"), "layout": closed({"type": one_of("json")})}),
    }
)
KIBANA_SECRETS = closed(
    dict.fromkeys(
        (
            "elasticsearch.password",
            "xpack.encryptedSavedObjects.encryptionKey",
            "xpack.reporting.encryptionKey",
            "xpack.security.encryptionKey",
        ),
        TEXT,
    )
)
MATCH: Schema = {"type": "string", "pattern": r"^kube\.\*$"}
TAIL = closed(
    {
        "name": one_of("tail"),
        "tag": MATCH,
        "path": TEXT,
        "exclude_path": TEXT,
        "multiline.parser": one_of("cri", "docker"),
        "db": PATH,
        "db.locking": FLAG,
        "read_from_head": FLAG,
        "refresh_interval": COUNT,
        "buffer_max_size": SIZE,
        "skip_long_lines": FLAG,
        "storage.type": one_of("memory", "filesystem", "memrb"),
    }
)
KUBERNETES = closed(
    {
        "name": one_of("kubernetes"),
        "match": MATCH,
        "kube_tag_prefix": TEXT,
        "use_tag_for_meta": SWITCH,
        "merge_log": SWITCH,
        "keep_log": SWITCH,
    }
)
MULTILINE = closed(
    {
        "name": one_of("multiline"),
        "match": MATCH,
        "multiline.key_content": TEXT,
        "multiline.parser": TEXT,
        "emitter_storage.type": one_of("memory", "filesystem"),
    }
)
LUA = closed({"name": one_of("lua"), "match": MATCH, "code": TEXT, "call": TEXT})
RULE = closed({"state": TEXT, "regex": {"type": "string", "pattern": "^/.*/$"}, "next_state": TEXT})
PARSER = closed({"name": TEXT, "type": one_of("regex"), "flush_timeout": COUNT, "rules": listed(RULE)})
MODIFY = closed({"name": one_of("modify"), "match": MATCH, "remove": listed(TEXT)})
OUTPUT = closed(
    {
        "name": one_of("opentelemetry"),
        "match": MATCH,
        "host": TEXT,
        "port": PORT,
        "logs_body_key": listed({"type": "string", "pattern": r"^\$[a-z]+$"}),
        "logs_body_key_attributes": SWITCH,
        "batch_size": COUNT,
        "compress": one_of("gzip"),
        "retry_limit": COUNT,
        "storage.total_limit_size": SIZE,
    }
)
FLUENT_BIT = closed(
    {
        "service": closed(
            {
                "flush": COUNT,
                "grace": COUNT,
                "log_level": one_of("off", "error", "warn", "info", "debug", "trace"),
                "http_server": SWITCH,
                "http_listen": TEXT,
                "http_port": PORT,
                "health_check": SWITCH,
                "scheduler.cap": COUNT,
                "storage.path": PATH,
                "storage.sync": one_of("normal", "full"),
                "storage.backlog.mem_limit": SIZE,
            }
        ),
        "multiline_parsers": listed(PARSER),
        "pipeline": closed(
            {
                "inputs": listed(TAIL),
                "filters": listed({"oneOf": [KUBERNETES, LUA, MODIFY, MULTILINE]}),
                "outputs": listed(OUTPUT),
            }
        ),
    }
)
