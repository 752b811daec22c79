from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard as Decoded
from pydantic import ValidationError
from voice_policies import faults_of

from components.observability import dashboards, tempo
from components.observability.dashboard_json import dashboard_json
from components.observability.dashboards import Dashboard, Panel, Query, Row
from components.observability.grafana import Grafana
from components.observability.prometheus import Prometheus
from tests.closed_schema import misspellings
from tests.components.observability.servers import BOARD, rendered, the


def decoded(board: Any) -> Any:
    """The dashboard after the SDK has read and written it. Fields that the SDK does not know are lost."""
    register_default_plugins()
    read = json.loads(JSONEncoder().encode(Decoded.from_json(board)))
    for panel in read.get("panels", ()):
        defaults = panel.get("fieldConfig", {}).get("defaults", {})
        if not defaults.get("custom"):
            defaults.pop("custom", None)  # the SDK adds an empty `custom`
    return read


def test_the_sdk_reads_every_field_that_a_dashboard_has() -> None:
    assert decoded(json.loads(dashboard_json(BOARD))) == json.loads(dashboard_json(BOARD))


def test_the_sdk_keeps_no_misspelt_field() -> None:
    changed = list(misspellings(json.loads(dashboard_json(BOARD))))
    assert len(changed) > 100
    assert [path for path, misspelt in changed if kept(misspelt)] == []


def kept(board: Any) -> bool:
    try:
        return bool(decoded(board) == board)
    except (KeyError, TypeError):
        return False


def test_a_panel_has_the_kind_thresholds_and_links_that_it_declares() -> None:
    panels = {panel["title"]: panel for panel in json.loads(dashboard_json(BOARD))["panels"]}
    kinds = {title: panel["type"] for title, panel in panels.items()}
    assert kinds == {
        "Now": "row",
        "Load": "timeseries",
        "Down": "gauge",
        "Ready": "stat",
        "Details": "row",
        "Traces": "table",
        "Logs": "logs",
    }
    steps = {title: panels[title]["fieldConfig"]["defaults"]["thresholds"]["steps"] for title in ("Down", "Ready")}
    assert [step["color"] for step in steps["Down"]] == ["green", "red"]
    assert [step["color"] for step in steps["Ready"]] == ["red", "green"]
    (link,) = panels["Load"]["fieldConfig"]["defaults"]["links"]
    assert link["url"].startswith("/d/service?var-service=${__field.labels.job}")
    (menu,) = json.loads(dashboard_json(BOARD))["links"]
    assert (menu["type"], menu["tags"], menu["keepTime"], menu["includeVars"]) == (
        "dashboards",
        [dashboards.TAG],
        True,
        True,
    )
    assert len({panel["id"] for panel in panels.values()}) == len(panels)


def test_the_import_of_tenant_and_audit_does_not_import_the_sdk() -> None:
    script = (
        "import sys; from stack.voiceassistant import TENANT; import stack.audit; "
        "print('grafana_foundation_sdk' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"


def test_panels_do_not_overlap() -> None:
    for board in the(Grafana).dashboards:
        taken: set[tuple[int, int]] = set()
        for panel in json.loads(dashboard_json(board))["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert place["x"] + place["w"] <= 24
            assert not cells & taken
            taken |= cells


def test_every_link_and_every_panel_names_a_data_source_with_a_fixed_uid() -> None:
    sources = yaml.safe_load(the(Grafana).files["datasources.yaml"])["datasources"]
    uids = [source["uid"] for source in sources]
    assert uids == ["prometheus", "alertmanager", "tempo", "jaeger", "logs"]
    boards = [json.loads(dashboard_json(each)) for each in the(Grafana).dashboards]
    assert set(named([sources, boards])) <= set(uids)
    kinds = {source["uid"]: source["type"] for source in sources}
    for board in boards:
        sources = [panel["datasource"] for panel in board["panels"] if panel["type"] != "row"]
        assert all(source["type"] == kinds[source["uid"]] for source in sources)


def named(document: Any) -> Iterator[str]:
    if isinstance(document, dict):
        for key, value in document.items():
            if key in {"datasourceUid", "alertmanagerUid"}:
                yield value
            elif key == "datasource":
                yield value["uid"]
            yield from named(value)
    elif isinstance(document, list):
        for value in document:
            yield from named(value)


def test_metrics_traces_and_logs_link_to_each_other() -> None:
    sources = {
        each["uid"]: each["jsonData"] for each in yaml.safe_load(the(Grafana).files["datasources.yaml"])["datasources"]
    }
    exemplars = sources[dashboards.PROMETHEUS]["exemplarTraceIdDestinations"]
    assert {each["name"] for each in exemplars} == {tempo.EXEMPLAR_LABEL, "trace_id"}
    assert {each["datasourceUid"] for each in exemplars} == {dashboards.TEMPO}
    (servers,) = rendered(the(Prometheus), "StatefulSet")
    assert "--enable-feature=exemplar-storage" in servers["spec"]["template"]["spec"]["containers"][0]["args"]
    for traces in (dashboards.TEMPO, dashboards.JAEGER):
        assert sources[traces]["tracesToLogsV2"]["datasourceUid"] == dashboards.ELASTICSEARCH
        assert sources[traces]["tracesToLogsV2"]["query"] == 'trace_id:"$${__span.traceId}"'
    assert sources[dashboards.TEMPO]["tracesToMetrics"]["datasourceUid"] == dashboards.PROMETHEUS
    assert sources[dashboards.TEMPO]["serviceMap"]["datasourceUid"] == dashboards.PROMETHEUS
    (link,) = sources[dashboards.ELASTICSEARCH]["dataLinks"]
    assert (link["field"], link["datasourceUid"]) == ("trace_id", dashboards.TEMPO)


def large(uid: str, size: int) -> Dashboard:
    panel = Panel(title="Large", description="takes room", queries=(Query(expression="x" * size),))
    return Dashboard(uid=uid, title="Large", rows=(Row(title="Large", panels=(panel,)),))


def test_one_error_lists_repeated_dashboards_and_dashboards_too_large_for_a_config_map() -> None:
    boards = (large("first", 1 << 20), *the(Grafana).dashboards, large("second", 1 << 20), large("second", 10))
    with pytest.raises(ValidationError) as caught:
        Grafana.model_validate({**dict(the(Grafana)), "dashboards": boards})
    sentences = [fault.accepted for fault in faults_of(caught.value, Grafana)]
    assert [sentence.partition(" has ")[0] for sentence in sentences] == [
        "dashboard second is declared twice",
        "dashboard first",
        "dashboard second",
    ]
    assert all(sentence.endswith("a ConfigMap holds at most 1048576") for sentence in sentences[1:])
    envelope = len(dashboard_json(large("just", 0)).encode())
    Grafana.model_validate({**dict(the(Grafana)), "dashboards": (large("just", (1 << 20) - envelope),)})


def test_each_dashboard_is_mounted_in_the_folder_that_the_provider_reads() -> None:
    grafana = the(Grafana)
    maps = {found["metadata"]["name"]: found["data"] for found in rendered(grafana, "ConfigMap")}
    (deployment,) = rendered(grafana, "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (config,) = (volume for volume in pod["volumes"] if volume["name"] == "config")
    files = {
        item["path"]: maps[source["configMap"]["name"]][item["key"]]
        for source in config["projected"]["sources"]
        for item in source["configMap"]["items"]
    }
    (provider,) = yaml.safe_load(files["provisioning/dashboards/dashboards.yaml"])["providers"]
    (mounted,) = (each["mountPath"] for each in pod["containers"][0]["volumeMounts"] if each["name"] == "config")
    assert provider["options"]["path"] == f"{mounted}/dashboards"
    assert {name for name in files if name.startswith("dashboards/")} == {"dashboards/shop.json"}
    assert {"grafana.ini", "provisioning/datasources/datasources.yaml"} <= files.keys()
