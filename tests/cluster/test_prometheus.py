import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import pytest

from components.access import TOKEN_PATH
from components.observability.prometheus import CONFIG_PATH, Prometheus
from components.observability.rules import Alert
from tests.cluster import otlp
from tests.cluster.alert_cases import CASES, Case, Labels, Series
from tests.cluster.misspelling import keys_of, misspelt
from tests.cluster.processes import Processes
from tests.loopback import free_port
from tests.platforms import ENVIRONMENTS, platform

pytestmark = pytest.mark.cluster

SECONDS = 600.0
"""Longest wait in seconds. A program that hangs fails the test after this time; a busy machine takes far less."""
FREE_FORM = {"external_labels", "labels", "annotations", "params"}
"""Fields whose keys are our own names, so Prometheus cannot refuse a misspelt one."""


def declared(environment: str) -> Prometheus:
    (found,) = (each for each in platform(environment).components if isinstance(each, Prometheus))
    return found


def written(environment: str, folder: Path) -> Path:
    for name, text in declared(environment).files.items():
        for path in (CONFIG_PATH, TOKEN_PATH, *(secret.path for secret in declared(environment).secrets)):
            text = text.replace(f"{path}/", f"{folder}/")  # noqa: PLW2901 - one change after the other
        (folder / name).write_text(text)
    for name in ("token", "ca.crt"):
        (folder / name).touch()
    return folder / "prometheus.json"


def check(promtool: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [promtool, *arguments]
    named = {**os.environ, "POD_NAME": "prometheus-0"}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS, env=named)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_promtool_accepts_configuration_and_rules(environment: str, promtool: Path, tmp_path: Path) -> None:
    file = written(environment, tmp_path)
    strict = ("--lint=all", "--lint-fatal")
    for command in (("config", file), ("rules", *strict, tmp_path / "rules.json")):
        checked = check(promtool, "check", *command)
        assert (checked.returncode, checked.stderr) == (0, ""), checked.stdout


@pytest.mark.parametrize(("kind", "name"), [("config", "prometheus.json"), ("rules", "rules.json")])
def test_each_key_is_refused_when_it_is_misspelt(kind: str, name: str, promtool: Path, tmp_path: Path) -> None:
    written("prod", tmp_path)
    file = tmp_path / name
    document = json.loads(file.read_text())
    accepted = []
    for path in distinct(document):
        file.write_text(json.dumps(misspelt(document, path)))
        if check(promtool, "check", kind, file).returncode == 0:
            accepted.append(path)
    assert accepted == []


def distinct(document: Any) -> Iterator[tuple[str | int, ...]]:
    """One path for each key that Prometheus defines. If several members of a list have the same key, it counts once."""
    seen = set()
    for path in keys_of(document):
        words = tuple(part for part in path if isinstance(part, str))
        if words not in seen and not FREE_FORM & set(words[:-1]):
            seen.add(words)
            yield path


def test_every_alert_has_a_case_and_every_case_an_alert() -> None:
    rules = [rule for group in declared("prod").groups for rule in group.rules]
    assert {rule.key for rule in rules if isinstance(rule, Alert)} == set(CASES)


@pytest.mark.parametrize("key", CASES, ids=lambda key: "-".join(filter(None, key)))
def test_an_alert_fires_for_its_firing_series_only(key: tuple[str, str | None], promtool: Path, tmp_path: Path) -> None:
    case = CASES[key]
    written("prod", tmp_path)
    document = {
        "rule_files": [str(tmp_path / "rules.json")],
        # Without this order promtool could evaluate an alert before its recording rule. The alert would then read the
        # value of the previous interval, up to ten minutes ago.
        "group_eval_order": [group.name for group in declared("prod").groups],
        # promtool evaluates every rule at every step, so a test of hours needs long steps.
        "evaluation_interval": "10m" if "h" in case.at else "1m",
        "tests": [
            unit(key, case, case.firing, case.labels),
            *([] if case.silent is None else [unit(key, case, case.silent, [])]),
        ],
    }
    file = tmp_path / "test.json"
    file.write_text(json.dumps(document))
    tested = check(promtool, "test", "rules", file)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def unit(key: tuple[str, str | None], case: Case, series: Series, expected: list[Labels]) -> dict[str, Any]:
    name, severity = key
    by = ", ".join(sorted({label for labels in case.labels for label in labels}))
    own = f',severity="{severity}"' if severity else ""
    return {
        "interval": "1m",
        "input_series": [{"series": each, "values": values} for each, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f'count by ({by}) (ALERTS{{alertname="{name}",alertstate="firing"{own}}})',
                "eval_time": case.at,
                "exp_samples": [{"labels": labels_text(labels), "value": 1} for labels in expected],
            }
        ],
    }


def labels_text(labels: Labels) -> str:
    return "{" + ", ".join(f'{name}="{value}"' for name, value in sorted(labels.items())) + "}"


EXPOSED = """\
# TYPE voice_operation_requests_total counter
voice_operation_requests_total{{operation="run",kind="successful"}} {0}
voice_operation_requests_total{{operation="run",kind="failed"}} {0}
# TYPE voice_operation_slow_requests_total counter
voice_operation_slow_requests_total{{operation="run"}} {0}
# TYPE kube_pod_container_status_restarts_total counter
kube_pod_container_status_restarts_total{{namespace="voice-apps",pod="rag-engine-1",container="rag-engine"}} {0}
"""


@contextmanager
def target() -> Iterator[int]:
    """Serves metrics of agent-engine, where half of the requests fail, and a series that kube-state-metrics exports."""
    asked = [0]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked[0] += 10
            body = EXPOSED.format(asked[0]).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Prints nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def pods(port: int) -> list[dict[str, Any]]:
    """Discovery of five pods: two targets, one finished, one with another name, one with another port."""
    running = {
        "__meta_kubernetes_namespace": "voice-apps",
        "__meta_kubernetes_pod_name": "agent-engine-1",
        "__meta_kubernetes_pod_phase": "Running",
        "__meta_kubernetes_pod_node_name": "node-1",
        "__meta_kubernetes_pod_label_app_kubernetes_io_name": "agent-engine",
        "__meta_kubernetes_pod_container_port_number": "8003",
    }
    others = (
        {"__meta_kubernetes_pod_phase": "Succeeded"},
        {"__meta_kubernetes_pod_label_app_kubernetes_io_name": "someone-else"},
        {"__meta_kubernetes_pod_container_port_number": "9000"},
    )
    counting = {
        **running,
        "__meta_kubernetes_namespace": "voice-observability",
        "__meta_kubernetes_pod_name": "kube-state-metrics-1",
        "__meta_kubernetes_pod_label_app_kubernetes_io_name": "kube-state-metrics",
        "__meta_kubernetes_pod_container_port_number": "8080",
    }
    labels = [running, counting, *({**running, "__meta_kubernetes_pod_name": "stranger", **other} for other in others)]
    return [{"targets": [f"127.0.0.1:{port}"], "labels": each} for each in labels]


@contextmanager
def serving(prometheus: Path, folder: Path, port: int) -> Iterator[str]:
    """Prometheus with the rendered files. It discovers pods from a file, and its intervals are 1 s."""
    file = written("prod", folder)
    document = json.loads(file.read_text())
    for name in ("scrape_interval", "scrape_timeout", "evaluation_interval"):
        document["global"][name] = "1s"
    for job in document["scrape_configs"]:
        if job.pop("kubernetes_sd_configs", None):
            job["file_sd_configs"] = [{"files": [str(folder / "pods.json")]}]
    (folder / "pods.json").write_text(json.dumps(pods(port)))
    file.write_text(json.dumps(document))
    (container,) = servers_pod()["containers"]
    arguments = [each.replace(f"{CONFIG_PATH}/", f"{folder}/") for each in container["args"]]
    arguments = [each.replace("=/prometheus", f"={folder}/data") for each in arguments]
    listening = free_port()
    with Processes(folder) as processes:
        address = f"127.0.0.1:{listening}"
        processes.start(prometheus, *arguments, f"--web.listen-address={address}", "--config.auto-reload-interval=1s")
        processes.wait_until(lambda: answer(f"http://{address}/-/ready") is not None, "Prometheus", SECONDS)
        yield f"http://{address}"


def servers_pod() -> dict[str, Any]:
    resources: list[Any] = list(declared("prod").resources())
    (server,) = (each for each in resources if each["kind"] == "StatefulSet")
    found: dict[str, Any] = server["spec"]["template"]["spec"]
    return found


def answer(address: str) -> bytes | None:
    try:
        with urlopen(address, timeout=5) as response:  # noqa: S310 - loopback
            return bytes(response.read())
    except OSError:
        return None


def query(server: str, expression: str) -> dict[str, float]:
    found = json.loads(answer(f"{server}/api/v1/query?query={quote(expression)}") or b"{}")
    return {
        labels_text(sample["metric"]): float(sample["value"][1]) for sample in found.get("data", {}).get("result", [])
    }


def test_prometheus_discovers_and_scrapes_pods_evaluates_rules_and_accepts_pushed_metrics(
    prometheus: Path, tmp_path: Path
) -> None:
    found = {
        "__name__": "up",
        "job": "agent-engine",
        "namespace": "voice-apps",
        "pod": "agent-engine-1",
        "node": "node-1",
    }
    failing = 'operation:failures:ratio_rate5m{job="agent-engine",operation="run"}'
    pending = 'ALERTS{alertname="OperationFailing",team="intelligence",severity="critical",job="agent-engine"}'
    with target() as port, serving(prometheus, tmp_path, port) as server:
        expected = labels_text({**found, "instance": f"127.0.0.1:{port}"})
        otlp.eventually(lambda: query(server, 'up{job="agent-engine"}') == {expected: 1.0}, SECONDS)
        otlp.eventually(lambda: list(query(server, failing).values()) == [0.5], SECONDS)
        otlp.eventually(lambda: bool(query(server, pending)), SECONDS)
        assert jobs(server) == {"agent-engine", "kube-state-metrics"}
        restarted = 'kube_pod_container_status_restarts_total{job="kube-state-metrics"}'
        otlp.eventually(lambda: bool(query(server, restarted)), SECONDS)
        (restarts,) = query(server, restarted)
        assert 'namespace="voice-apps", node="node-1", pod="rag-engine-1"' in restarts
        assert "exported_" not in restarts
        exported = (answer(f"{server}/metrics") or b"").decode()
        assert "\nprometheus_rule_evaluation_failures_total{" in exported
        assert "\nprometheus_config_last_reload_successful 1\n" in exported
        pushed = otlp.metric("model-router", "queue_depth", 7)
        endpoint = f"{server}/api/v1/otlp"
        otlp.eventually(lambda: otlp.send_to(endpoint, "metrics", pushed), SECONDS)
        otlp.eventually(
            lambda: list(query(server, 'queue_depth{job="voiceassistant/model-router"}').values()) == [7.0], SECONDS
        )


def jobs(server: str) -> set[str]:
    """The jobs that have a pod among their targets."""
    active = json.loads(answer(f"{server}/api/v1/targets?state=active") or b"{}")["data"]["activeTargets"]
    return {each["labels"]["job"] for each in active if each["labels"].get("pod")}


def test_prometheus_reloads_a_changed_rule_without_a_restart(prometheus: Path, tmp_path: Path) -> None:
    with target() as port, serving(prometheus, tmp_path, port) as server:
        otlp.eventually(lambda: bool(query(server, "target:declared")), SECONDS)
        rules = tmp_path / "rules.json"
        document = json.loads(rules.read_text())
        document["groups"][0]["rules"].append({"record": "new:rule", "expr": "vector(42)"})
        rules.write_text(json.dumps(document))
        otlp.eventually(lambda: list(query(server, "new:rule").values()) == [42.0], SECONDS)
