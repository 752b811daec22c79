from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from voice_policies import InvalidInputError

from stack.cli import main
from stack.model.settings import ROOT
from stack.output.difference import Identity, Side, compare
from stack.output.difference.report import as_json, markdown, text
from stack.output.difference.sides import side_of
from stack.voiceassistant import TENANT


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    out = tmp_path / "prod"
    assert main(["render", "prod", "-o", str(out)]) == 0
    return out


def edit(tree: Path, before: str, after: str) -> None:
    path = tree / "manifests/50-services/agent-engine.yaml"
    content = path.read_text(encoding="utf-8")
    assert before in content
    path.write_text(content.replace(before, after), encoding="utf-8")


def claim(tree: Path, storage_class: str) -> None:
    metadata = {"name": "files", "namespace": "voice-data"}
    document = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata}
    spec = {"storageClassName": storage_class}
    (tree / "manifests/claim.yaml").write_text(yaml.safe_dump({**document, "spec": spec}), encoding="utf-8")


def test_an_environment_equals_the_tree_that_it_renders(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["diff", "prod", str(tree)]) == 0
    assert capsys.readouterr().out == "no differences\n"


def test_a_changed_field_is_reported_with_the_pods_that_restart(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(tree, "terminationGracePeriodSeconds: 29", "terminationGracePeriodSeconds: 40")
    capsys.readouterr()
    assert main(["diff", "prod", str(tree)]) == 1
    assert capsys.readouterr().out == (
        "blast radius\n"
        "  Deployment voice-apps/agent-engine: pods restart, because its spec.template changes\n"
        "~ Deployment voice-apps/agent-engine\n"
        "    spec.template.spec.terminationGracePeriodSeconds: 29 -> 40\n"
        "0 added, 0 removed, 1 changed; restarts: 1, reloads: 0, data at risk: 0\n"
    )


def test_the_error_for_a_tree_lists_every_document_that_is_not_a_resource(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree / "manifests/a.yaml").write_text("foo: bar\n---\n- 1\n")
    (tree / "manifests/b.yaml").write_text("apiVersion: v1\nkind: List\nitems: []\n")
    (tree / "manifests/c.yaml").write_text("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec:\n")
    capsys.readouterr()
    assert main(["diff", "prod", str(tree)]) == 2
    refused = capsys.readouterr().err
    assert refused.startswith(f"voice: {tree}: 4 faults\n")
    for place in ("a.yaml[0]", "a.yaml[1]", "b.yaml[0]", "c.yaml[0]"):
        said = "is not a Kubernetes resource; expected apiVersion, kind, metadata.name and a mapping spec"
        assert f"  manifests/{place}: {said}" in refused


def test_environments_differ_by_their_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "staging", "prod"]) == 1
    out = capsys.readouterr().out
    assert "data[policy.json].tracing.sample_ratio: 50% -> 10%" in out
    assert "pods reload" in out
    restarted = [line for line in out.splitlines() if "pods restart" in line]
    assert sorted(line.partition(":")[0].strip() for line in restarted) == sorted(
        [
            "Pooler voice-data/postgresql-pooler",
            "StatefulSet voice-observability/tempo",
            "StatefulSet voice-observability/otel-collector",
            "Deployment voice-observability/blackbox-exporter",
            "Deployment voice-gateway/gateway",
            *(f"Deployment {service.namespace}/{service.name}" for service in TENANT.graph.services),
        ]
    )


def test_data_at_risk_is_refused_unless_allowed(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = shutil.copytree(tree, tmp_path / "other")
    claim(tree, "fast")
    claim(other, "slow")
    assert main(["diff", str(tree), str(other)]) == 3
    refused = capsys.readouterr()
    assert "spec.storageClassName: fast -> slow" in refused.out
    assert "PersistentVolumeClaim voice-data/files: holds data and would be replaced; keep the old value" in refused.err
    assert main(["diff", "--allow-replacement", str(tree), str(other)]) == 1


@pytest.mark.parametrize(
    ("side", "said"),
    [
        ("production", "names nothing to compare"),
        ("nowhere/", "names nothing to compare"),
        ("HEAD:production", "cannot be rendered"),
        (":prod", "names nothing to compare"),
        ("no-such-revision:prod", "cannot be rendered"),
        ("--output=x:prod", "cannot be rendered"),
    ],
)
def test_an_unknown_environment_tree_or_revision_is_bad_input(
    side: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diff", "--", "prod", side]) == 2
    error = capsys.readouterr().err
    assert error.startswith("voice: voice diff: 1 fault\n")
    assert said in error


def test_a_tree_with_invalid_yaml_is_refused(tree: Path) -> None:
    edit(tree, "kind: Deployment", "kind: [")
    with pytest.raises(InvalidInputError, match=r"agent-engine\.yaml"):
        side_of(str(tree), TENANT)


def test_the_error_for_a_broken_tree_lists_every_fault(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = json.loads((tree / "index.json").read_text(encoding="utf-8"))
    listed = sorted({entry["file"] for entry in index["resources"]})
    unfinished = {"environment": "unfinished", "resources": [], "files": [*index["files"], *listed]}
    (tree / "index.json").write_text(json.dumps(unfinished), encoding="utf-8")
    (tree / listed[0]).unlink()
    (tree / listed[1]).write_text("a: [", encoding="utf-8")
    shutil.copy(tree / "manifests/50-services/rag-engine.yaml", tree / "manifests/copy.yaml")
    (tree / "ledger.json").write_text("[]", encoding="utf-8")
    assert main(["diff", str(tree), "nowhere"]) == 2
    said = capsys.readouterr().err
    assert "index.json: says that a run of `voice render` did not end; render the environment again" in said
    assert f"{listed[0]}: is missing; render the environment again" in said
    assert f"{listed[1]}:2: is not YAML" in said
    assert "Deployment voice-apps/rag-engine: is declared twice; keep one of them" in said
    assert "ledger.json: is []; expected measure → subject → value" in said
    assert "'nowhere': names nothing to compare" in said


@pytest.mark.parametrize("text", ["garbage", "[]", "[" * 100_000, '{"environment": "prod", "resources": 3}'])
def test_a_tree_whose_index_is_not_from_voice_render_is_refused(
    text: str, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree / "index.json").write_text(text, encoding="utf-8")
    assert main(["diff", str(tree), "prod"]) == 2
    assert "index.json: is not an index of `voice render`; render the environment again" in capsys.readouterr().err


def test_a_revision_without_the_code_of_voice_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "components", tmp_path / "components", ignore=shutil.ignore_patterns("__pycache__"))
    git("-C", str(tmp_path), "init", "--quiet")
    git("-C", str(tmp_path), "add", ".")
    git("-C", str(tmp_path), "commit", "--quiet", "-m", "components alone")
    monkeypatch.setattr("stack.output.difference.sides.ROOT", tmp_path)
    assert main(["diff", "HEAD:prod", "prod"]) == 2
    assert "HEAD: cannot be rendered; it has no policies/voice_policies, stack/cli; expected" in capsys.readouterr().err


def git(*arguments: str) -> None:
    names = ["-c", "user.name=Test", "-c", "user.email=test@example.com"]
    subprocess.run(["git", *names, *arguments], check=True, capture_output=True, timeout=300)


def test_a_revision_is_rendered_with_its_own_code_and_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = tmp_path / "repository"
    for part in ("components", "stack", "policies", "runtime"):
        shutil.copytree(ROOT / part, repository / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file in (*ROOT.glob("Pulumi*.yaml"), ROOT / "images.lock.yaml"):
        shutil.copy(file, repository)
    git("-C", str(repository), "init", "--quiet")
    for number, (path, before, after) in enumerate(
        (
            ("Pulumi.prod.yaml", "config:\n", "config:\n  voiceassistant:trace_sample_ratio: 12%\n"),
            ("components/workloads.py", "MIN_READY_SECONDS = 5", "MIN_READY_SECONDS = 6"),
            ("policies/voice_policies/tracing.py", "= 2048", "= 4096"),
        )
    ):
        git("-C", str(repository), "add", ".")
        git("-C", str(repository), "commit", "--quiet", "--allow-empty", "-m", f"{number}")
        content = (repository / path).read_text(encoding="utf-8")
        assert before in content
        (repository / path).write_text(content.replace(before, after), encoding="utf-8")
    settings = (repository / "Pulumi.dev.yaml").read_text(encoding="utf-8")
    (repository / "Pulumi.faulty.yaml").write_text(f"{settings}  voiceassistant:mesh: true\n", encoding="utf-8")
    git("-C", str(repository), "add", ".")
    git("-C", str(repository), "commit", "--quiet", "-m", "all")
    monkeypatch.setattr("stack.output.difference.sides.ROOT", repository)
    difference = compare(side_of("HEAD~3:prod", TENANT), side_of("HEAD:prod", TENANT))
    assert difference.blast_radius == (), "expected equal measures; `None`: a revision has no measures"
    found = {
        (field.path, str(field.before), str(field.after)) for change in difference.changed for field in change.fields
    }
    # The sampling ratio also changes the text of the gateway's routes, and the size of the Collector's queues.
    elsewhere = ("digest", "data[apisix.yaml]", "queue_size")
    assert {change for change in found if not any(part in change[0] for part in elsewhere)} == {
        ("data[collector.json].processors.probabilistic_sampler.sampling_percentage", "10.0", "12.0"),
        ("spec.minReadySeconds", "5", "6"),
        ("data[policy.json].tracing.sample_ratio", "10%", "12%"),
        ("data[policy.json].tracing.max_queue", "2048", "4096"),
    }
    assert side_of("HEAD:faulty", TENANT).resources, "a revision is compared even if the audit finds errors in it"


def test_the_text_json_and_markdown_reports_show_the_same_differences(tree: Path) -> None:
    edit(tree, "terminationGracePeriodSeconds: 29", "terminationGracePeriodSeconds: 40")
    edit(tree, "maxUnavailable: 1\n  unhealthyPodEvictionPolicy: AlwaysAllow", "maxUnavailable: 1")
    claim(tree, "fast")
    difference = compare(side_of("prod", TENANT), side_of(str(tree), TENANT))
    document = json.loads(as_json(difference))
    assert document["added"] == [
        {"kind": "PersistentVolumeClaim", "namespace": "voice-data", "name": "files", "group": ""}
    ]
    assert [change["fields"] for change in document["changed"]] == [
        [{"path": "spec.template.spec.terminationGracePeriodSeconds", "before": 29, "after": 40}],
        [{"path": "spec.unhealthyPodEvictionPolicy", "before": "AlwaysAllow"}],
    ]
    assert document["effects"][0]["pods"] == "restart"
    assert "    spec.unhealthyPodEvictionPolicy: AlwaysAllow -> (absent)\n" in text(difference)
    assert (
        "<details><summary>~ Deployment voice-apps/agent-engine</summary>\n\n~~~~diff\n"
        "spec.template.spec.terminationGracePeriodSeconds: 29 -> 40\n~~~~\n\n</details>"
    ) in markdown(difference)
    assert markdown(difference).startswith("1 added, 0 removed, 2 changed; restarts: 1,")


def test_text_of_several_lines_is_shown_as_its_changed_lines(tree: Path) -> None:
    config = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: rules\ndata:\n  rules.yaml: |\n    a: 1\n    b: {b}\n"
    other = tree.parent / "other"
    shutil.copytree(tree, other)
    for root, value in ((tree, "2"), (other, "3")):
        (root / "manifests/rules.yaml").write_text(config.replace("{b}", value), encoding="utf-8")
    lines = text(compare(side_of(str(tree), TENANT), side_of(str(other), TENANT))).splitlines()
    assert lines[:6] == [
        "~ ConfigMap rules",
        "    data[rules.yaml]:",
        "        @@ -1,2 +1,2 @@",
        "         a: 1",
        "        -b: 2",
        "        +b: 3",
    ]


def test_text_shows_every_value_in_full() -> None:
    before = {"kind": "Job", "apiVersion": "batch/v1", "metadata": {"name": "a"}, "short": {"a": 1}, "old": ""}
    after = {
        **before,
        "short": {"a": 1, "b": "c" * 200},
        "new": {"ports": [{"number": 1, "name": "x" * 300}]},
        "old": "a\nb",
    }
    sides = [Side({Identity.of(side): side}, {}) for side in (before, after)]
    assert text(compare(*sides)).splitlines()[1:-1] == [
        f"    short.b: (absent) -> {'c' * 200}",
        "    old:",
        "        @@ -1 +1,2 @@",
        '        -""',
        "        +a",
        "        +b",
        "    new:",
        "        @@ -0,0 +1,8 @@",
        *(f"        +{line}" for line in json.dumps(after["new"], indent=2).splitlines()),
    ]
