from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from voice_policies import Duration

from components.container import Image
from components.edge.egress_proxy import EgressProxy
from components.edge.envoy import HELLO_TIMEOUT, LISTENERS, AllowList
from components.links import Link, Links, peer
from components.network_policy import Peer
from components.node import Host, Replicas
from tests.components.edge.envoy_program import Proxy, rendered, running, static_resources, validated
from tests.components.edge.tls_hosts import PATIENCE, certificate, hello, hosts, reached
from tests.toy import SIZING

STRANGER = "example.org"


API, FILES, PAYMENTS = (
    Host(host=f"{name}.example.com", port=443, egress="egress-proxy-a") for name in ("api", "files", "payments")
)


def proxy_of(name: str, *allow_lists: AllowList) -> EgressProxy:
    opened = {**{allowed.caller: allowed.port for allowed in allow_lists}, "prometheus": EgressProxy.scrape.port}
    pods = Peer(namespace="egress", name=name, ports=())
    links = (Link(peer("shop", each), pods.model_copy(update={"ports": (port,)})) for each, port in opened.items())
    return EgressProxy(
        name=name,
        namespace="egress",
        image=Image(reference="envoy:1"),
        sizing=SIZING,
        links=Links(links),
        replicas=Replicas.exactly(2),
        allow_lists=allow_lists,
        outward=(),
        longest_request=Duration("30s"),
    )


@cache
def proxies() -> dict[str, EgressProxy]:
    orders = AllowList(caller="orders", port=10_001, hosts=(API,))
    prices = AllowList(caller="prices", port=10_002, hosts=(FILES, PAYMENTS))
    found = proxy_of("egress-proxy-a", orders, prices), proxy_of("egress-proxy-b", orders)
    return {proxy.name: proxy for proxy in found}


def of_kind(proxy: EgressProxy, kind: str) -> dict[str, Any]:
    (found,) = [dict(resource) for resource in proxy.resources() if resource["kind"] == kind]
    return found


def arguments(proxy: EgressProxy) -> list[str]:
    (container,) = of_kind(proxy, "Deployment")["spec"]["template"]["spec"]["containers"]
    found: list[str] = container["args"]
    return found


def callers() -> list[tuple[str, AllowList]]:
    return [(name, allowed) for name, proxy in proxies().items() for allowed in proxy.allow_lists]


HOSTS = sorted({host.host for _, allowed in callers() for host in allowed.hosts})


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate(tmp_path_factory.mktemp("hosts"), [*HOSTS, STRANGER])


@pytest.fixture(scope="module")
def started(pem: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Proxy]]:
    folder = tmp_path_factory.mktemp("envoy")
    with ExitStack() as stack:
        ports = stack.enter_context(hosts([*HOSTS, STRANGER], pem))
        yield {
            name: stack.enter_context(running(rendered(proxy), arguments(proxy), ports, folder / name))
            for name, proxy in proxies().items()
        }


@pytest.mark.parametrize(("proxy", "allowed"), callers(), ids=lambda value: getattr(value, "caller", value))
def test_a_caller_reaches_its_declared_hosts_and_no_other(
    proxy: str, allowed: AllowList, started: dict[str, Proxy], pem: Path
) -> None:
    port = started[proxy].ports[allowed.port]
    found = {name: reached(port, name, pem) for name in (*HOSTS, STRANGER)}
    declared = {host.host for host in allowed.hosts}
    assert found == {name: name if name in declared else None for name in (*HOSTS, STRANGER)}


def refusals(proxy: Proxy, caller: str) -> int:
    return proxy.statistic(f'envoy_listener_no_filter_chain_match{{envoy_listener_address="{caller}"}}')


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def test_refused_connections_are_counted_and_logged_by_caller(started: dict[str, Proxy], pem: Path) -> None:
    proxy, (allowed, *_) = started["egress-proxy-b"], proxies()["egress-proxy-b"].allow_lists
    before = refusals(proxy, allowed.caller)
    assert reached(proxy.ports[allowed.port], STRANGER, pem) is None
    assert eventually(lambda: refusals(proxy, allowed.caller) == before + 1)
    assert reached(proxy.ports[allowed.port], allowed.hosts[0].host, pem)
    assert refusals(proxy, allowed.caller) == before + 1
    line = f'"caller":"{allowed.caller}","host":"{STRANGER}","message":"refused"'
    assert eventually(lambda: line in proxy.log.read_text())


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE).close()
    except ConnectionRefusedError:
        return False
    return True


def closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1024) == b""
    except ConnectionResetError:
        return True


def test_connections_without_a_host_name_or_without_tls_are_refused(started: dict[str, Proxy], pem: Path) -> None:
    (allowed, *_) = proxies()["egress-proxy-a"].allow_lists
    port = started["egress-proxy-a"].ports[allowed.port]
    assert reached(port, None, pem) is None
    with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
        plain.sendall(f"CONNECT {allowed.hosts[0].host}:443 HTTP/1.1\r\n\r\n".encode())
        assert closed(plain)


def test_a_silent_connection_is_closed(started: dict[str, Proxy]) -> None:
    (allowed, *_) = proxies()["egress-proxy-a"].allow_lists
    patience = float(HELLO_TIMEOUT.rstrip("s")) + PATIENCE
    port = started["egress-proxy-a"].ports[allowed.port]
    with socket.create_connection(("127.0.0.1", port), timeout=patience) as silent:
        assert closed(silent)


@pytest.mark.parametrize("path", ["/quitquitquit", "/config_dump", "/stats", "/"])
def test_the_status_port_does_not_serve_envoys_admin_interface(path: str, started: dict[str, Proxy]) -> None:
    assert started["egress-proxy-a"].ask("POST", path)[0] == HTTPStatus.NOT_FOUND


def test_envoy_answers_every_probe(started: dict[str, Proxy]) -> None:
    for name, proxy in proxies().items():
        (container,) = of_kind(proxy, "Deployment")["spec"]["template"]["spec"]["containers"]
        paths = [container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("liveness", "readiness")]
        assert len(set(paths)) == 2
        assert [started[name].ask("GET", path)[0] for path in paths] == [HTTPStatus.OK, HTTPStatus.OK]


def test_envoy_accepts_every_rendered_file_without_a_warning(tmp_path: Path) -> None:
    for proxy in proxies().values():
        done = validated(rendered(proxy), tmp_path)
        assert (done.returncode, done.stderr) == (0, "")


def test_envoy_refuses_a_misspelt_key(tmp_path: Path) -> None:
    files = rendered(proxies()["egress-proxy-b"])
    done = validated({name: text.replace("server_names", "server_name") for name, text in files.items()}, tmp_path)
    assert done.returncode != 0
    assert "server_name" in done.stderr


def test_a_changed_allow_list_changes_no_pod() -> None:
    proxy = proxies()["egress-proxy-a"]
    fewer = proxy.model_copy(update={"allow_lists": proxy.allow_lists[1:]})
    assert of_kind(fewer, "Deployment") == of_kind(proxy, "Deployment")
    assert rendered(fewer) != rendered(proxy)


def test_envoy_applies_a_changed_allow_list_and_keeps_open_connections(pem: Path, tmp_path: Path) -> None:
    orders = AllowList(caller="orders", port=10_001, hosts=(API,))
    prices = AllowList(caller="prices", port=10_002, hosts=(FILES,))
    before, after = (
        rendered(proxy_of("proxy", *lists))
        for lists in ((orders,), (orders.model_copy(update={"hosts": (API, PAYMENTS)}), prices))
    )
    with ExitStack() as stack:
        api = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        ports = {**stack.enter_context(hosts(HOSTS, pem)), API.host: api.getsockname()[1]}
        container = arguments(proxy_of("proxy", orders))
        proxy = stack.enter_context(running(before, container, ports, tmp_path / "envoy"))
        of_orders = proxy.ports[orders.port]
        client = stack.enter_context(socket.create_connection(("127.0.0.1", of_orders), timeout=PATIENCE))
        client.sendall(hello(API.host))
        server = stack.enter_context(api.accept()[0])
        assert reached(of_orders, PAYMENTS.host, pem) is None
        proxy.mount(after)
        assert eventually(lambda: reached(of_orders, PAYMENTS.host, pem) == PAYMENTS.host)
        assert eventually(lambda: listens(proxy.ports[prices.port]))
        assert reached(proxy.ports[prices.port], FILES.host, pem) == FILES.host
        assert reached(proxy.ports[prices.port], PAYMENTS.host, pem) is None
        proxy.mount(before)
        assert eventually(lambda: reached(of_orders, PAYMENTS.host, pem) is None)
        assert eventually(lambda: not listens(proxy.ports[prices.port]))
        server.sendall(b"still open")
        assert client.recv(1024) == b"still open"


@pytest.mark.parametrize("key", ["server_names", "stat_prefix", "filter_chains"])
def test_envoy_keeps_its_allow_list_if_the_new_file_is_invalid(key: str, pem: Path, tmp_path: Path) -> None:
    orders = AllowList(caller="orders", port=10_001, hosts=(FILES,))
    proxy = proxy_of("proxy", orders)
    files = rendered(proxy)
    with hosts(HOSTS, pem) as ports, running(files, arguments(proxy), ports, tmp_path / "envoy") as started:
        started.mount({**files, LISTENERS: files[LISTENERS].replace(f'"{key}"', f'"mis{key}"')})
        assert eventually(lambda: started.statistic("envoy_listener_manager_lds_update_attempt{}") == 2)
        assert started.statistic("envoy_listener_manager_lds_update_success{}") == 1
        assert reached(started.ports[orders.port], FILES.host, pem) == FILES.host
        assert reached(started.ports[orders.port], STRANGER, pem) is None


def test_the_pre_stop_sleep_lets_the_longest_request_end() -> None:
    for proxy in proxies().values():
        pod = of_kind(proxy, "Deployment")["spec"]["template"]["spec"]
        sleep = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert sleep >= proxy.longest_request.seconds + 5
        assert pod["terminationGracePeriodSeconds"] >= sleep


def test_service_and_network_policy_have_the_ports_of_the_configuration() -> None:
    for proxy in proxies().values():
        listening = {
            each["address"]["socket_address"]["port_value"] for each in static_resources(rendered(proxy))["listeners"]
        }
        policy = of_kind(proxy, "NetworkPolicy")["spec"]["ingress"]
        assert {port["port"] for port in of_kind(proxy, "Service")["spec"]["ports"]} == listening
        assert {port["port"] for rule in policy for port in rule["ports"]} == listening
