"""A closed schema of the APISIX 3.18 fields that we set.

It is transcribed from APISIX's sources: `apisix/schema_def.lua` (route, upstream, consumer, global rule, ssl),
`apisix/plugins/<plugin>.lua` (each plugin's `schema`), `apisix/plugins/limit-count/init.lua`,
`apisix/utils/redis-schema.lua` and, for `config.yaml`, `apisix/cli/schema.lua` and `conf/config.yaml.example`. If a
value is a reference to an environment variable, APISIX does not check it against a schema (`apisix/core/schema.lua`).
"""

from __future__ import annotations

from tests.closed_schema import COUNT, FLAG, PORT, TEXT, Schema, closed, listed, one_of

SECONDS: Schema = {"type": "number", "exclusiveMinimum": 0}
REFUSAL: Schema = {"type": "integer", "minimum": 200, "maximum": 599}
REFERENCE: Schema = {"type": "string", "pattern": r"^\$env://[A-Z_]+$"}
RATIO_SAMPLER = closed(
    {
        "name": one_of("always_on", "always_off", "trace_id_ratio"),
        "options": closed({"fraction": {"type": "number", "minimum": 0, "maximum": 1}}),
    }
)
STATUSES = {"type": "array", "minItems": 1, "uniqueItems": True}
PLUGINS: dict[str, Schema] = {
    "api-breaker": closed(
        {
            "break_response_code": REFUSAL,
            "max_breaker_sec": {"type": "integer", "minimum": 3},
            "unhealthy": closed(
                {"http_statuses": {**STATUSES, "items": {"type": "integer", "minimum": 500}}, "failures": COUNT}
            ),
            "healthy": closed(
                {"http_statuses": {**STATUSES, "items": {"type": "integer", "maximum": 499}}, "successes": COUNT}
            ),
        }
    ),
    "client-control": closed({"max_body_size": {"type": "integer", "minimum": 0}}),
    "cors": closed(
        {
            "allow_origins": {"type": "string", "pattern": r"^https://[a-z0-9.-]+(,https://[a-z0-9.-]+)*$"},
            "allow_methods": TEXT,
            "allow_headers": TEXT,
            "expose_headers": TEXT,
            "max_age": {"type": "integer"},
        }
    ),
    "jwt-auth": closed(
        {"key_claim_name": TEXT, "store_in_ctx": FLAG, "claims_to_verify": listed(one_of("exp", "nbf"))}
    ),
    "limit-conn": closed(
        {
            "conn": COUNT,
            "burst": {"type": "integer", "minimum": 0},
            "default_conn_delay": SECONDS,
            "key": TEXT,
            "key_type": one_of("var", "var_combination"),
            "rejected_code": REFUSAL,
        }
    ),
    "limit-count": closed(
        {
            "count": COUNT,
            "time_window": COUNT,
            "window_type": one_of("fixed", "sliding"),
            "key": TEXT,
            "key_type": one_of("var", "var_combination", "constant"),
            "rejected_code": REFUSAL,
            "policy": one_of("local", "redis", "redis-cluster", "redis-sentinel"),
            "redis_host": {"type": "string", "minLength": 2},
            "redis_port": PORT,
            "redis_username": {"type": "string", "minLength": 1},
            "redis_password": REFERENCE,
            "redis_timeout": COUNT,
            "allow_degradation": FLAG,
        },
        {"redis_ssl": FLAG, "redis_ssl_verify": FLAG},
    ),
    "limit-req": closed(
        {
            "rate": SECONDS,
            "burst": {"type": "number", "minimum": 0},
            "key": TEXT,
            "key_type": one_of("var", "var_combination"),
            "rejected_code": REFUSAL,
            "nodelay": FLAG,
            "policy": one_of("redis", "redis-cluster", "local"),
        }
    ),
    "opentelemetry": closed(
        {
            "sampler": closed(
                {
                    "name": one_of("always_on", "always_off", "trace_id_ratio", "parent_base"),
                    "options": closed({"root": RATIO_SAMPLER}),
                }
            )
        }
    ),
    "prometheus": closed({"prefer_name": FLAG}),
    "redirect": closed({"http_to_https": FLAG}),
    "request-id": closed(
        {"algorithm": one_of("uuid", "nanoid", "range_id", "ksuid", "uuidv7"), "include_in_response": FLAG}
    ),
    "serverless-post-function": closed({"phase": one_of("log"), "functions": listed(TEXT)}),
    "response-rewrite": closed({"headers": closed({"set": closed({"Strict-Transport-Security": TEXT})})}),
    "serverless-pre-function": closed(
        {"phase": one_of("rewrite", "access"), "functions": listed(TEXT)},
        {"_meta": closed({"priority": COUNT})},  # `apisix/schema_def.lua`, plugin_injected_schema
    ),
}
UPSTREAM = closed(
    {
        "type": one_of("roundrobin", "chash", "ewma", "least_conn"),
        "nodes": listed(closed({"host": TEXT, "port": PORT, "weight": {"type": "integer", "minimum": 0}})),
        "pass_host": one_of("pass", "node", "rewrite"),
        "retries": {"type": "integer", "minimum": 0},
        "timeout": closed({"connect": SECONDS, "send": SECONDS, "read": SECONDS}),
    }
)
ROUTE = closed(
    {
        "id": {"type": "string", "pattern": r"^[a-zA-Z0-9-_.]+$", "maxLength": 64},
        "name": {"type": "string", "minLength": 1, "maxLength": 100},
        "host": TEXT,
        "uri": {"type": "string", "pattern": "^/"},
        "methods": {**listed(one_of("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")), "uniqueItems": True},
        "enable_websocket": FLAG,
        "plugins": closed({}, PLUGINS),
        "upstream": UPSTREAM,
    }
)
CONSUMER = closed(
    {
        "username": {"type": "string", "pattern": r"^[a-zA-Z0-9_\-]+$"},
        "plugins": closed(
            {"jwt-auth": closed({"key": TEXT, "algorithm": one_of("RS256", "ES256"), "public_key": REFERENCE})}
        ),
    }
)
RESOURCE = closed({"service.name": TEXT, "service.namespace": TEXT})
COLLECTOR = closed({"address": TEXT, "request_timeout": {"type": "integer"}})
RESOURCES = closed(
    {
        "routes": listed(ROUTE),
        "consumers": listed(CONSUMER),
        "global_rules": listed(closed({"id": TEXT, "plugins": closed({}, PLUGINS)})),
        "plugin_metadata": listed(closed({"id": one_of(*PLUGINS), "resource": RESOURCE, "collector": COLLECTOR})),
        "ssls": listed(closed({"id": TEXT, "snis": listed(TEXT), "cert": REFERENCE, "key": REFERENCE})),
    }
)
PROGRAM = closed(
    {
        "apisix": closed(
            {
                "node_listen": listed(PORT),
                "enable_admin": FLAG,
                "enable_control": FLAG,
                "enable_server_tokens": FLAG,
                "ssl": closed({"enable": FLAG, "listen": listed(closed({"port": PORT}))}),
                "status": closed({"ip": TEXT, "port": PORT}),
            }
        ),
        "deployment": closed(
            {"role": one_of("data_plane"), "role_data_plane": closed({"config_provider": one_of("yaml")})}
        ),
        "nginx_config": closed(
            {
                "worker_processes": COUNT,
                "error_log": TEXT,
                "http": closed(
                    {
                        "access_log": TEXT,
                        "access_log_format": TEXT,
                        "access_log_format_escape": one_of("default", "json"),
                        "client_max_body_size": TEXT,
                        "upstream": closed({"keepalive_timeout": TEXT}),
                    }
                ),
                "http_configuration_snippet": TEXT,
            }
        ),
        "plugins": listed(one_of(*PLUGINS)),
        "plugin_attr": closed(
            {
                "prometheus": closed(
                    {"export_addr": closed({"ip": TEXT, "port": PORT}), "default_buckets": listed({"type": "number"})}
                ),
                "redirect": closed({"https_port": PORT}),
            }
        ),
    }
)
