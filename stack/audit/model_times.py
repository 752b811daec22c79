"""M02, M03, M04: streamed answers that exceed their objective, their deadline or the time limit of a hop."""

from __future__ import annotations

from collections.abc import Iterator

from voice_policies import Duration, StreamLatency

from components.edge.egress_proxy import EgressProxy
from components.node import Gateway
from stack.audit.egress import envoy_resources
from stack.audit.finding import Breach, Rule
from stack.audit.rendered import rendered
from stack.model.call_graph import CallGraph, OperationKey
from stack.model.model_load import ModelDemand, model_demands, model_edges
from stack.model.platform import Platform

ENVOY_IDLE = Duration("1h")
"""Envoy's default idle timeout of a TCP connection (envoyproxy.io, TcpProxy.idle_timeout)."""


def answers_fit_the_timeout(platform: Platform) -> Iterator[Breach | None]:
    """Compare the longest answer of each candidate with the objective of the request and the route's timeout."""
    for demand in model_demands(platform.graph):
        for candidate in demand.candidates:
            yield _too_slow(demand, candidate.name, candidate.latency)


def _too_slow(demand: ModelDemand, name: str, latency: StreamLatency) -> Breach | None:
    limit = min(demand.objective, demand.route.timeout.total)
    tokens, whole = demand.use.output_max, latency.whole(demand.use.output_max)
    if whole <= limit:
        return None
    what = "the objective" if limit == demand.objective else "the route's total timeout"
    decoding = f"{max(tokens - 1, 0)} tokens × {latency.per_token}"
    text = f"first token {latency.first_token} + {decoding} = {whole} > {limit}, {what}"
    proposal = ""
    if latency.first_token < limit:
        remaining = limit - latency.first_token
        fitting = 1 + int(remaining / latency.per_token)
        proposal = (
            f"at most {fitting} tokens, or candidates with {(tokens - 1) / remaining.seconds:.0f} tokens a second"
        )
    return Breach(
        f"{demand.path}: {name}", text, f"{demand.name}: candidates or output", proposal, demand.edge.target.location
    )


def attempts_fit_the_deadline(platform: Platform) -> Iterator[Breach | None]:
    """Compare the time of all attempts and of the decoding with the deadline.

    Also compare the idle timeout of each route with the longest pause of each candidate.
    """
    for demand in model_demands(platform.graph):
        attempts, route = demand.route.fallback.max_attempts, demand.route
        tokens = max(demand.use.output_max - 1, 0)
        slowest = max(candidate.latency.per_token for candidate in demand.candidates)
        needed = route.max_waiting + slowest * tokens
        text = (
            f"{attempts} first tokens × {route.timeout.first_token} + {route.fallback.backoff * (attempts - 1)} of"
            f" backoff + {tokens} tokens × {slowest} = {needed} > {demand.deadline}, the deadline"
        )
        field = f"{demand.name}: timeout.first_token, or the deadline"
        yield (
            Breach(demand.path, text, field, str(needed), demand.edge.target.location)
            if needed > demand.deadline
            else None
        )
    for edge, route, models in model_edges(platform.graph):
        for candidate in models.candidates(route):
            gap, idle = candidate.model.longest_gap, route.timeout.idle
            text = f"a healthy stream may pause for {gap}, but the route ends a stream that pauses for {idle}"
            found = Breach(
                f"{edge.path}: {candidate.name}",
                text,
                f"{'.'.join(edge.key)}: timeout.idle",
                str(gap),
                edge.target.location,
            )
            yield found if idle < gap else None


def hops_outlast_the_route(platform: Platform) -> Iterator[Breach | None]:
    """Compare the fixed limits of every hop on the way to a model with the route's total timeout."""
    behind, proxies = _routes_behind(platform.graph), dict(_proxy_limits(platform))
    for edge, route, models in model_edges(platform.graph):
        for candidate in models.candidates(route):
            egress = models.provider(candidate).host.egress
            for field, limit in proxies.get((egress, edge.caller.name), ()):
                yield _ends_early(f"{edge.path}: {egress}", field, limit, route.timeout.total)
    for edge in platform.graph.edges:
        if isinstance(edge.caller, Gateway) and (longest := behind.get(edge.key)):
            yield _ends_early(edge.path, f"{edge.path}: timeout", edge.attempt_timeout, longest)
    yield from _mesh_hops(platform, behind)


def _ends_early(path: str, field: str, limit: Duration, total: Duration) -> Breach | None:
    text = f"the hop ends a stream after {limit}, but the route allows {total}"
    # In Envoy and in Istio, 0s means no limit.
    return Breach(path, text, field, str(total)) if limit and limit < total else None


def _routes_behind(graph: CallGraph) -> dict[OperationKey, Duration]:
    """Operation → the longest total timeout of the model routes that it serves or that its calls lead to."""
    found: dict[OperationKey, Duration] = {}
    for run in graph.bottom_up:
        totals = [run.operation.route.timeout.total] if run.operation.route else []
        totals += [found[edge.key] for edge in run.edges if edge.key in found]
        if totals:
            found[run.key] = max(totals)
    return found


def _proxy_limits(platform: Platform) -> Iterator[tuple[tuple[str, str], list[tuple[str, Duration]]]]:
    """Egress proxy and caller → the fixed limits of the caller's connections, each with its field."""
    for proxy, resources in platform.resources:
        if isinstance(proxy, EgressProxy):
            for listener in envoy_resources(resources).listeners:
                settings = [chain["filters"][-1]["typed_config"] for chain in listener["filter_chains"]]
                limits = [("idle_timeout", Duration(each.get("idle_timeout", str(ENVOY_IDLE)))) for each in settings]
                field = "max_downstream_connection_duration"
                limits += [(field, Duration(each[field])) for each in settings if field in each]
                yield (proxy.name, listener["name"]), limits


def _mesh_hops(platform: Platform, behind: dict[OperationKey, Duration]) -> Iterator[Breach | None]:
    """Compare the mesh's timeout for each service with the longest total timeout of the service's model routes."""
    totals: dict[str, Duration] = {}
    for service in platform.graph.services:
        if routes := [
            behind[service.name, each.name] for each in service.operations if (service.name, each.name) in behind
        ]:
            totals[platform.site.grpc_host(service)] = max(routes)
    for found in rendered(platform).of_kind("VirtualService"):
        for host in set(found["spec"]["hosts"]) & set(totals):
            for route in found["spec"].get("http", ()):
                if "timeout" in route:
                    path = f"VirtualService {found['metadata']['name']} → {host}"
                    yield _ends_early(path, "spec.http[].timeout", Duration(route["timeout"]), totals[host])


RULES = (
    Rule(
        id="M02",
        title="the longest answer of each candidate meets the objective",
        severity="error",
        rationale="decoding takes most of an answer's time, so a slow candidate misses the objective of long answers",
        source="time to first token and time per output token: DistServe (OSDI 2024)",
        violates="250ms + 149 × 20ms = 3.23s for an operation with an objective of 900ms",
        holds="250ms + 149 × 4.3ms = 890.7ms for the same operation",
        check=answers_fit_the_timeout,
    ),
    Rule(
        id="M03",
        title="every attempt at a model fits the deadline, and pauses do not end a stream",
        severity="error",
        rationale="the provider bills a fallback that starts too late, although the caller's deadline cuts the answer",
        source="T02; infra#2078, tracker#577",
        violates="2 × 700ms + 50ms of backoff + 11 × 4.3ms = 1497.3ms, and the caller waits 1497ms",
        holds="the same attempts, and a caller that waits 1500ms",
        check=attempts_fit_the_deadline,
    ),
    Rule(
        id="M04",
        title="no hop ends a stream before the model route's total timeout",
        severity="error",
        rationale="a stream that a proxy cuts at the proxy's time limit looks like a fault of the provider",
        source="infra#2078",
        violates="a gateway with a timeout of 2s in front of a service whose route allows 3s",
        holds="a gateway with a timeout of 3s",
        check=hops_outlast_the_route,
    ),
)
