"""The gateway's two files. A schema of APISIX's fields checks them, because no package registry has APISIX."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic import ValidationError
from voice_policies import STREAM_IDLE_TIMEOUT, Adaptive, Duration, InvalidInputError, Rate, RateLimit, Ratio, Retry

from components.edge.apisix import MEMORY_BODY
from components.edge.apisix_functions import REMOVE_CLAIMED_IDENTITY, SET_VERIFIED_IDENTITY
from components.edge.gateway import ApisixGateway
from components.node import Dependency, Gateway, InCluster
from components.operation import HttpRoute, Operation, hard, operation, soft, stage
from stack.model.environments import environment as environment_of
from stack.model.platform import Platform
from stack.model.policy_bundles import outbound_call
from stack.voiceassistant import TENANT
from stack.voiceassistant.catalog import GATEWAY
from stack.voiceassistant.site import SITE
from stack.voiceassistant.tiers import gateway as tier
from tests.platforms import ENVIRONMENTS, platform, real_environment, with_nodes
from tests.redis_servers import single
from tests.small import gateway, service
from tests.stack.voiceassistant.tiers.apisix_schema import PROGRAM, RESOURCES


@cache
def component(environment: str = "prod") -> ApisixGateway:
    (found,) = [each for each in platform(environment).components if isinstance(each, ApisixGateway)]
    return found


def resources(environment: str = "prod") -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(component(environment).files["apisix.yaml"])
    return loaded


def program(environment: str = "prod") -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(component(environment).files["config.yaml"])
    return loaded


def faults(schema: dict[str, Any], document: object) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in Draft202012Validator(schema).iter_errors(document)]


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("api.example.com", "https://app.example.com"),
        ("therapi.example.com", "https://therapi.example.com"),
        ("voice.api.example.com", "https://voice.api.example.com"),
        ("gateway.example.com", "https://gateway.example.com"),
    ],
)
def test_the_allowed_origin_replaces_the_hosts_first_label_api_with_app(host: str, origin: str) -> None:
    settings = real_environment("prod").settings.model_copy(update={"gateway_host": host})
    made = Platform(TENANT, environment_of(settings, TENANT))
    (found,) = (each for each in made.components if isinstance(each, ApisixGateway))
    (rule,) = re.findall(r'"allow_origins": *"([^"]*)"', found.files["apisix.yaml"])[:1]
    assert rule == origin


@pytest.mark.parametrize("environment", [*ENVIRONMENTS, "prod-external"])
def test_both_files_match_the_schema_of_apisix(environment: str) -> None:
    assert faults(RESOURCES, resources(environment)) == []
    assert faults(PROGRAM, program(environment)) == []


def keys(document: object) -> set[str]:
    if isinstance(document, dict):
        return set(document).union(*(keys(value) for value in document.values()))
    return set().union(*(keys(value) for value in document)) if isinstance(document, list) else set()


@pytest.mark.parametrize("key", sorted(keys(resources())))
def test_the_schema_refuses_every_misspelt_key_of_the_routes(key: str) -> None:
    assert faults(RESOURCES, json.loads(json.dumps(resources()).replace(f'"{key}":', f'"{key}_":')))


@pytest.mark.parametrize("key", sorted(keys(program())))
def test_the_schema_refuses_every_misspelt_key_of_the_program(key: str) -> None:
    assert faults(PROGRAM, json.loads(json.dumps(program()).replace(f'"{key}":', f'"{key}_":')))


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_routes_end_with_the_end_mark(environment: str) -> None:
    assert component(environment).files["apisix.yaml"].endswith("\n#END\n")


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_program_file_has_the_keys_that_the_entrypoint_needs(environment: str) -> None:
    for words in (r"role:\s*data_plane", r"role_data_plane:", r"config_provider:\s*yaml"):
        assert re.search(words, component(environment).files["config.yaml"])


def test_exactly_the_used_plugins_are_loaded() -> None:
    used = {name for each in (*resources()["routes"], *resources()["global_rules"]) for name in each["plugins"]}
    assert used == set(program()["plugins"])


def test_a_route_has_the_path_and_the_limits_and_timeouts_of_its_operation() -> None:
    graph = platform("prod").graph
    routes = {route["id"]: route for route in resources()["routes"]}
    assert list(routes) == [each.name for each in GATEWAY.operations]
    for edge in graph.edges_from(GATEWAY):
        if edge.callee.name == "redis":
            continue
        http, route, call = edge.operation.http, routes[edge.operation.name], outbound_call(edge, SITE, mesh=False)
        assert http is not None
        assert (route["uri"], route["methods"]) == (http.path, [http.method, "OPTIONS"])
        assert route["upstream"]["nodes"][0]["host"] == f"{edge.callee.name}.voice-apps.svc.cluster.local"
        assert route["plugins"]["client-control"]["max_body_size"] == http.max_body.units
        assert ("jwt-auth" in route["plugins"]) != http.public
        is_websocket = edge.operation.name == "voice-engine-dialogue"
        assert route["enable_websocket"] == is_websocket
        timeout = call.timeout.attempt.seconds
        idle = STREAM_IDLE_TIMEOUT.seconds if is_websocket else timeout
        assert route["upstream"]["timeout"] == {"connect": timeout, "send": idle, "read": idle}
        assert ("api-breaker" not in route["plugins"]) == (call.circuit_breaker is None) == is_websocket
        if call.circuit_breaker:
            assert route["plugins"]["api-breaker"]["unhealthy"]["failures"] == call.circuit_breaker.consecutive_failures


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_bodies_of_admitted_requests_fit_the_volume(environment: str) -> None:
    on_disk = 0
    for route in resources(environment)["routes"]:
        largest = route["plugins"]["client-control"]["max_body_size"]
        assert ("limit-conn" in route["plugins"]) == (largest > MEMORY_BODY.units), route["id"]
        on_disk += largest * route["plugins"].get("limit-conn", {"conn": 0})["conn"]
    assert 0 < on_disk <= component(environment).bodies.units


def test_two_of_three_replicas_admit_all_uploads_of_slow_clients() -> None:
    plugins = {route["id"]: route["plugins"] for route in resources()["routes"]}["knowledge-service-upload"]
    # 5 uploads a second, each of which takes 20.97 s (25 MiB at 10 Mbit/s) + 1.65 s (timeout of the call), are 113.1
    # uploads at the same time. While one of three replicas is missing, each of the other two admits half of them: 57.
    assert plugins["limit-conn"]["conn"] == 57


def test_all_replicas_share_a_limit_in_redis_and_each_replica_also_enforces_the_limit_locally() -> None:
    plugins = {route["id"]: route["plugins"] for route in resources()["routes"]}["knowledge-service-search"]
    shared, alone = plugins["limit-count"], plugins["limit-req"]
    assert (shared["count"], shared["time_window"]) == (100, 2)  # 50/s with a burst of 100: at most 100 in any 2 s
    assert (shared["policy"], shared["allow_degradation"]) == ("redis", True)
    assert (alone["rate"], alone["burst"], alone["policy"]) == (50, 100, "local")
    assert {shared["rejected_code"], alone["rejected_code"]} == {429}
    assert {shared["key"], alone["key"]} == {"http_x_tenant_id"}


def test_identity_headers_of_clients_are_removed_before_opentelemetry_reads_them() -> None:
    (rule,) = resources()["global_rules"]
    function = rule["plugins"]["serverless-pre-function"]
    assert (function["phase"], function["functions"]) == ("rewrite", [REMOVE_CLAIMED_IDENTITY])
    # APISIX runs plugins with a higher priority first. `request-id` has 12015, `opentelemetry` 12009.
    assert function["_meta"]["priority"] > 12_015


def test_routes_with_a_token_set_the_tenant_and_public_routes_do_not() -> None:
    for route in resources()["routes"]:
        plugins = route["plugins"]
        assert ("serverless-pre-function" in plugins) == ("jwt-auth" in plugins)
        if "jwt-auth" in plugins:
            assert plugins["serverless-pre-function"] == {"phase": "access", "functions": [SET_VERIFIED_IDENTITY]}
        else:
            assert plugins["limit-count"]["key"] == "remote_addr"


def test_no_log_line_contains_a_query_and_browsers_must_use_tls() -> None:
    form = program()["nginx_config"]["http"]["access_log_format"]
    assert not re.search(r"\$(request|request_uri|args|query_string|http_referer|upstream_uri)\b", form)
    assert json.loads(form)["path"] == "$uri"
    (rule,) = resources()["global_rules"]
    headers = rule["plugins"]["response-rewrite"]["headers"]["set"]
    assert headers == {"Strict-Transport-Security": "max-age=31536000"}


FAKE_APISIX = """
local observed, registered = {}, {}
local prometheus = {histogram = function(_, name, _, labels, buckets)
  table.insert(registered, name .. " " .. labels[1] .. " " .. table.concat(buckets, ","))
  return {observe = function(_, value, labels) table.insert(observed, value .. " " .. labels[1]) end}
end}
local exporter = {get_prometheus = function() return prometheus end}
local count = assert(loadstring("local require = ... " .. ARGV[1]))(function() return exporter end)
for index = 2, #ARGV do count({}, {var = {upstream_header_time = ARGV[index]}, route_name = "send"}) end
return {registered, observed}
"""
"""Runs the function in Valkey's Lua 5.1. APISIX runs it in LuaJIT, which has the syntax of Lua 5.1."""


def test_the_first_byte_of_each_streamed_answer_is_counted_once(tmp_path: Path) -> None:
    with single(tmp_path) as server:
        route = next(each for each in resources()["routes"] if each["id"] == "conversation-service-send")
        (function,) = route["plugins"]["serverless-post-function"]["functions"]
        registered, observed = server.ask("EVAL", FAKE_APISIX, 0, function, "0.012", "0.5, 0.25", "-", "nil")
    boundaries = "1,5,20,50,100,200,300,500,1000,2000,5000,10000,60000"
    assert registered == [f"http_first_byte_latency route {boundaries}"]
    assert observed == ["12 send", "250 send"]


def test_every_objective_of_a_route_is_a_boundary_of_the_latency_histogram() -> None:
    boundaries = program()["plugin_attr"]["prometheus"]["default_buckets"]
    graph = platform("prod").graph
    assert graph.gateway
    assert {each.latency.units // 1000 for each in graph.gateway.operations} <= {*boundaries}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_gateway_has_the_sampling_ratio_of_the_environment(environment: str) -> None:
    (rule,) = resources(environment)["global_rules"]
    ratio = real_environment(environment).settings.trace_sample_ratio
    assert rule["plugins"]["opentelemetry"]["sampler"]["options"]["root"]["options"]["fraction"] == float(ratio)


def test_the_files_refer_to_exactly_the_secret_variables_of_the_pod() -> None:
    text = "".join(component().files.values())
    assert set(re.findall(r"\$env://([A-Z_]+)", text)) == set(component().variables)


def of_kind(environment: str, kind: str) -> dict[str, Any]:
    (found,) = [dict(resource) for resource in component(environment).resources() if resource["kind"] == kind]
    return found


def test_only_dev_has_no_load_balancer() -> None:
    kinds = [of_kind(environment, "Service")["spec"]["type"] for environment in ENVIRONMENTS]
    assert kinds == ["NodePort", "LoadBalancer", "LoadBalancer"]


READ = operation("read", p95="10ms", deadline="100ms")


def route(name: str, path: str, *calls: object, **options: object) -> Operation:
    http = HttpRoute(path=path, method="GET")
    return operation(name, stage(*calls), p95="100ms", deadline="1s", http=http, **options)  # type: ignore[arg-type]


def test_two_routes_with_one_path_are_refused() -> None:
    call = hard("a.read", "idempotent")
    (fault,) = gateway(route("one", "/v1/a", call), route("two", "/v1/a", call)).faults
    assert fault.accepted.startswith("path /v1/a is the route of one and two")


@pytest.mark.parametrize("path", ["v1", "/v1/", "/v1/*", "/v1/:id", "/V1", ""])
def test_a_path_with_a_wildcard_a_parameter_or_a_wrong_form_is_refused(path: str) -> None:
    with pytest.raises(ValidationError, match="path"):
        HttpRoute(path=path, method="GET")


def cache_store() -> Dependency:
    return Dependency(
        name="redis",
        kind="datastore",
        purpose="exists for a test",
        protocol="redis",
        addresses=(InCluster(namespace="voice-data", service="redis", port=6379),),
        availability=Ratio("99.99%"),
        operations=(READ,),
    )


def built(*routes: Operation) -> list[ApisixGateway]:
    entrance: Gateway = gateway(*routes)
    made = Platform(with_nodes(entrance, service("a", READ), cache_store()), real_environment("prod"))
    components = [build() for build in tier.components(made.graph, made.environment, made.links)]
    return [component for component in components if isinstance(component, ApisixGateway)]


def test_one_error_lists_the_unsupported_policies_of_all_routes() -> None:
    adaptive = RateLimit(limit=Adaptive(min_rate=Rate("1/s"), max_rate=Rate("9/s"), burst=9))
    redis = soft("redis.read", "each gateway pod enforces its own limits", circuit_breaker="off")
    calls = (redis, hard("a.read", "idempotent"))
    with pytest.raises(InvalidInputError) as refused:
        built(*(route(name, f"/v1/{name}", *calls, rate_limits=(adaptive,)) for name in ("one", "two")))
    assert str(refused.value).count("the gateway supports token_bucket only") == 2


def test_the_gateway_retries_as_often_as_the_call_declares() -> None:
    redis = soft("redis.read", "each gateway pod enforces its own limits", circuit_breaker="off")
    retry = Retry(max_retries=2, base_delay=Duration("10ms"), max_delay=Duration("10ms"))
    again, once = hard("a.read", "idempotent", retry=retry), hard("a.read", "idempotent")
    (component_,) = built(route("again", "/v1/again", redis, again), route("once", "/v1/once", redis, once))
    routes = yaml.safe_load(component_.files["apisix.yaml"])["routes"]
    assert {each["id"]: each["upstream"]["retries"] for each in routes} == {"again": 2, "once": 0}


def test_the_first_byte_histogram_has_the_objectives_of_all_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker creates the histogram once, with the boundaries of the route that answers first."""
    objectives = {"one": Duration("300ms"), "two": Duration("400ms")}
    monkeypatch.setattr(tier, "first_byte_objective", lambda _graph, name: objectives.get(name))
    redis = soft("redis.read", "each gateway pod enforces its own limits", circuit_breaker="off")
    names = (*objectives, "whole")
    (component_,) = built(*(route(name, f"/v1/{name}", redis, hard("a.read", "idempotent")) for name in names))
    routes = yaml.safe_load(component_.files["apisix.yaml"])["routes"]
    plugins = {each["id"]: each["plugins"].get("serverless-post-function") for each in routes}
    assert plugins["one"] == plugins["two"]
    assert "200, 300, 400, 500" in plugins["one"]["functions"][0]
    assert plugins["whole"] is None


def test_a_websocket_route_with_a_breaker_is_refused() -> None:
    redis = soft("redis.read", "each gateway pod enforces its own limits", circuit_breaker="off")
    with pytest.raises(InvalidInputError, match=r"one → a\.read: is refused; one is a WebSocket with a breaker"):
        built(route("one", "/v1/a", redis, hard("a.read", "never"), transport="websocket"))
    assert built(route("one", "/v1/a", redis, hard("a.read", "never", circuit_breaker="off"), transport="websocket"))


def test_limits_without_a_store_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="gateway: calls no Redis"):
        built(route("one", "/v1/a", hard("a.read", "idempotent")))


def test_a_gateway_without_http_routes_is_not_deployed() -> None:
    assert built(operation("one", stage(hard("a.read", "idempotent")), p95="100ms", deadline="1s")) == []
