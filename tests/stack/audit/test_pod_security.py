from __future__ import annotations

from typing import Any

import pytest

from stack.audit.finding import Finding
from tests.stack.audit.rule_findings import WithManifests, of_manifests, verdict

SECURE = {
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
SIZES = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}}
PINNED = f"example.com/a@sha256:{'0' * 64}"


def workload(
    security: dict[str, Any] = SECURE,
    image: str = PINNED,
    pod: dict[str, Any] | None = None,
    named: str = "a",
    **container: Any,
) -> dict[str, Any]:
    made = {"name": "a", "image": image, "resources": SIZES, "securityContext": security, **container}
    template = {"metadata": {"labels": {}}, "spec": {"containers": [made], **(pod or {})}}
    return {"kind": "Deployment", "metadata": {"name": named, "namespace": "shop"}, "spec": {"template": template}}


def found(*documents: dict[str, Any]) -> tuple[Finding, ...]:
    return verdict("S01", of_manifests(*documents)).findings


def test_s01_finds_a_secret_in_a_rendered_file() -> None:
    secret = {"kind": "Secret", "metadata": {"name": "database"}}
    assert found(secret) == ()
    assert len(found({**secret, "stringData": {"password": "x"}})) == 1
    (plain,) = found(workload(env=[{"name": "DB_PASSWORD", "value": "changeme"}]))
    assert plain.arithmetic == "secrets in plain text: DB_PASSWORD"
    assert len(found(workload(env=[{"name": "AWS_SECRET_ACCESS_KEY", "value": "changeme"}]))) == 1
    named = {"name": "DB_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "database", "key": "password"}}}
    assert found(workload(env=[named])) == ()


def test_s01_finds_a_secret_in_variables_from_a_config_map() -> None:
    settings = {"kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "shop"}, "data": {"TOKEN": "x"}}
    whole = workload(envFrom=[{"prefix": "API_", "configMapRef": {"name": "settings"}}])
    (plain,) = found(settings, whole)
    assert plain.arithmetic == "secrets in plain text: API_TOKEN"
    key = {"name": "TOKEN", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "TOKEN"}}}
    assert len(found(settings, workload(env=[key]))) == 1
    assert found({**settings, "data": {"LEVEL": "info"}}, whole) == ()
    assert found(whole, workload(named="b", envFrom=[{"secretRef": {"name": "settings"}}])) == ()


def test_s01_finds_a_secret_of_an_init_container() -> None:
    first = {"name": "first", "image": PINNED, "resources": SIZES, "securityContext": SECURE}
    plain = {**first, "env": [{"name": "PASSWORD", "value": "changeme"}]}
    assert len(found(workload(pod={"initContainers": [plain]}))) == 1
    assert found(workload(pod={"initContainers": [first]})) == ()


@pytest.mark.parametrize(("image", "count"), [("example.com/a:1.0.0", 1), (PINNED, 0)])
def test_s01_finds_an_image_without_a_digest_only_in_a_strict_profile(image: str, count: int) -> None:
    assert found(workload(image=image)) == (), "the small platform's profile is not strict"
    strict = WithManifests((), (workload(image=image),))
    profile = strict.environment.profile.model_copy(update={"strict": True})
    strict.environment = strict.environment.model_copy(update={"profile": profile})
    assert [each.path for each in verdict("S01", strict).findings] == ["images.lock.yaml"] * count


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"allowPrivilegeEscalation": True}, "allowPrivilegeEscalation is not false"),
        ({"runAsNonRoot": False}, "runAsNonRoot is not true"),
        ({"capabilities": {"drop": ["NET_RAW"]}}, "capabilities.drop lacks ALL"),
        ({"seccompProfile": {"type": "Unconfined"}}, "seccompProfile is neither RuntimeDefault nor Localhost"),
        ({"privileged": True}, "privileged"),
        ({"runAsUser": 0}, "runAsUser is 0"),
        ({"capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}}, "the capability NET_ADMIN"),
        ({"procMount": "Unmasked"}, "procMount Unmasked"),
        ({"appArmorProfile": {"type": "Unconfined"}}, "appArmorProfile is neither RuntimeDefault nor Localhost"),
        ({"seLinuxOptions": {"type": "spc_t"}}, "seLinuxOptions"),
        ({"seLinuxOptions": {"user": "system_u"}}, "seLinuxOptions"),
        ({"windowsOptions": {"hostProcess": True}}, "windowsOptions.hostProcess"),
    ],
)
def test_s01_finds_a_container_that_the_standard_restricted_refuses(changed: dict[str, Any], reason: str) -> None:
    (refused,) = found(workload({**SECURE, **changed}))
    assert refused.arithmetic == f"the Pod Security Standard `restricted` refuses the pods: {reason}"
    assert found(workload()) == ()


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}, "sysctl kernel.msgmax"),
        ({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}]}}, None),
        ({"securityContext": {"runAsUser": 0}}, "runAsUser is 0"),
    ],
    ids=["a sysctl", "a safe sysctl", "root for the pod"],
)
def test_s01_checks_the_security_context_of_the_pod(changed: dict[str, Any], reason: str | None) -> None:
    refused = [
        each.arithmetic.partition("pods: ")[2] for each in found(workload({**SECURE, "runAsUser": 1}, pod=changed))
    ]
    assert refused == ([reason] if reason else [])


@pytest.mark.parametrize("kind", ["Job", "CronJob"])
def test_s01_checks_the_pods_of_jobs(kind: str) -> None:
    made = workload({**SECURE, "privileged": True}, env=[{"name": "TOKEN", "value": "x"}])
    spec = {"jobTemplate": {"spec": made["spec"]}} if kind == "CronJob" else made["spec"]
    plain, refused = found({**made, "kind": kind, "spec": spec})
    assert (plain.path, refused.path) == ("shop/a: a.env", "shop/a: security")


@pytest.mark.parametrize(
    "container",
    [
        {"livenessProbe": {"httpGet": {"port": 80, "host": "metadata.internal"}}},
        {"lifecycle": {"preStop": {"tcpSocket": {"port": 80, "host": "metadata.internal"}}}},
    ],
    ids=["probe", "hook"],
)
def test_s01_finds_a_handler_that_connects_to_another_host(container: dict[str, Any]) -> None:
    (refused,) = found(workload(**container))
    assert "`restricted` refuses the pods: host of " in refused.arithmetic


def test_s01_finds_an_apparmor_annotation_that_confines_nothing() -> None:
    free = workload()
    annotation = "container.apparmor.security.beta.kubernetes.io/a"
    free["spec"]["template"]["metadata"]["annotations"] = {annotation: "unconfined"}
    (refused,) = found(free)
    assert "AppArmor profile unconfined" in refused.arithmetic
    free["spec"]["template"]["metadata"]["annotations"] = {annotation: "runtime/default", "other": "x"}
    assert found(free) == ()


KEY = "-----BEGIN EC PRIVATE KEY-----\nMHc"


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (KEY, True),
        ("postgresql://user:hunter2@store/shop", True),
        ("postgresql://user:$(PASSWORD)@store/shop", False),
        ("postgresql://user@store/shop", False),
        ("http://store:8080/a@b", False),
        ("postgresql://user:p%40ss@store/shop", True),
        ("user:hunter2@tcp(store:3306)/shop", True),
        ("LEVEL=info\nexport DB_PASSWORD=hunter2\n", True),
        ("host=store user=shop password=hunter2", True),
        ("AWS_SECRET_ACCESS_KEY = 'hunter2'", True),
        ("TOKEN=hunter2", True),
        ("password: hunter2", True),
        ('{"apiKey": "hunter2"}', True),
        ("password_file=/etc/password", False),
        ("password: /etc/password", False),
        ("PGPASSWORD=$(cat password)", False),
        ("password: ${PASSWORD}", False),
        ("password=\nuser=shop", False),
        ("PASSWORD :'password'", False),
        ("password = read(path)", False),
        ("first_token: 250ms", False),
        ("secret: certificate", False),
        ("secret_key: true", False),
        ('{"api_key": "phc_1"}', False),
    ],
)
def test_s01_finds_a_key_or_a_password_inside_a_text(value: str, plain: bool) -> None:
    config = {
        "kind": "ConfigMap",
        "metadata": {"name": "files", "namespace": "shop"},
        "data": {"a.conf": f"x = {value}"},
    }
    assert len(found(config)) == plain
    assert len(found(workload(env=[{"name": "STORE", "value": value}]))) == plain
    assert len(found(workload(args=[f"--store={value}"]))) == plain


@pytest.mark.parametrize(
    ("argument", "plain"),
    [("--admin-password=x", True), ("-token x", True), ("--token-file=/etc/t", False), ("--token=$(T)", False)],
)
def test_s01_finds_an_argument_with_a_secret(argument: str, plain: bool) -> None:
    assert len(found(workload(args=[argument]))) == plain


def test_s01_finds_a_host_port() -> None:
    (refused,) = found(workload(ports=[{"containerPort": 80, "hostPort": 80}]))
    assert refused.arithmetic == "the Pod Security Standard `restricted` refuses the pods: hostPort 80"
    assert found(workload(ports=[{"containerPort": 80}])) == ()


@pytest.mark.parametrize(
    "pod",
    [{"hostNetwork": True}, {"volumes": [{"name": "root", "hostPath": {"path": "/"}}]}],
    ids=["host network", "host path"],
)
def test_s01_finds_a_pod_that_reaches_its_node(pod: dict[str, Any]) -> None:
    assert len(found(workload(pod=pod))) == 1
    labels = {"pod-security.kubernetes.io/enforce": "privileged"}
    freed = {"kind": "Namespace", "metadata": {"name": "shop", "labels": labels}}
    assert found(workload(pod=pod), freed) == (), "the namespace enforces another standard"


def test_s01_finds_the_data_of_a_secret_and_lists_all_plain_variables_in_one_finding() -> None:
    (written,) = found({"kind": "Secret", "metadata": {"name": "database"}, "data": {"password": "eA=="}})
    assert (written.path, written.proposal) == ("Secret database", "")
    secrets = [{"name": "TOKEN", "value": "x"}, {"name": "PASSWORD", "value": "y"}, {"name": "API_KEY"}]
    (plain,) = found(workload(env=secrets))
    assert plain.arithmetic == "secrets in plain text: TOKEN, PASSWORD"


def test_s01_reads_config_maps_and_references_that_leave_fields_out() -> None:
    empty = {"kind": "ConfigMap", "metadata": {"name": "empty", "namespace": "shop"}}
    settings = {"kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "shop"}, "data": {"TOKEN": "x"}}
    (plain,) = found(empty, settings, workload(envFrom=[{"configMapRef": {"name": "settings"}}]))
    assert plain.arithmetic == "secrets in plain text: TOKEN"
    assert found(empty, settings, workload(envFrom=[{"configMapRef": {"name": "empty"}}])) == ()
    for reference in ({"name": "settings"}, {"key": "TOKEN"}, {"name": "settings", "key": "LEVEL"}):
        variable = {"name": "TOKEN", "valueFrom": {"configMapKeyRef": reference}}
        assert found(empty, settings, workload(env=[variable])) == (), reference


def test_s01_lists_all_images_without_a_digest_in_one_finding() -> None:
    strict = WithManifests((), (workload(image="example.com/a:1"), workload(image="example.com/b:1", named="b")))
    profile = strict.environment.profile.model_copy(update={"strict": True})
    strict.environment = strict.environment.model_copy(update={"profile": profile})
    (unpinned,) = verdict("S01", strict).findings
    assert unpinned.arithmetic == "2 of 2 images have no digest: example.com/a:1, example.com/b:1"


def test_s01_checks_pods_against_the_standard_that_their_namespace_enforces() -> None:
    name, free = "pod-security.kubernetes.io/enforce", workload(pod={"hostPID": True, "hostIPC": True})
    alike: tuple[dict[str, Any], ...] = ({}, {"labels": {}}, {"labels": {name: "restricted"}})
    for labels in alike:
        (refused,) = found(free, {"kind": "Namespace", "metadata": {"name": "shop", **labels}})
        assert refused.arithmetic == "the Pod Security Standard `restricted` refuses the pods: hostIPC, hostPID"
    assert found(free, {"kind": "Namespace", "metadata": {"name": "shop", "labels": {name: "baseline"}}}) == ()


def test_s01_reads_the_security_context_of_the_pod_if_the_container_has_none() -> None:
    of_pod = {key: SECURE[key] for key in ("runAsNonRoot", "seccompProfile")}
    of_container = {key: SECURE[key] for key in ("allowPrivilegeEscalation", "capabilities")}
    assert found(workload(of_container, pod={"securityContext": of_pod})) == ()
    (bare,) = found(workload({}))
    assert bare.arithmetic == (
        "the Pod Security Standard `restricted` refuses the pods: allowPrivilegeEscalation is not false,"
        " capabilities.drop lacks ALL, runAsNonRoot is not true, seccompProfile is neither RuntimeDefault nor Localhost"
    )
    without = workload({})
    del without["spec"]["template"]["spec"]["containers"][0]["securityContext"]
    assert [each.arithmetic for each in found(without)] == [bare.arithmetic]


@pytest.mark.parametrize(
    "changed",
    [
        {"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}},
        {"seccompProfile": {"type": "Localhost"}},
    ],
    ids=["NET_BIND_SERVICE", "Localhost"],
)
def test_s01_accepts_the_fields_that_the_standard_restricted_admits(changed: dict[str, Any]) -> None:
    assert found(workload({**SECURE, **changed})) == ()


def test_s01_finds_a_container_that_adds_a_capability_and_does_not_drop_all_others() -> None:
    (refused,) = found(workload({**SECURE, "capabilities": {"add": ["NET_BIND_SERVICE"]}}))
    assert refused.arithmetic == "the Pod Security Standard `restricted` refuses the pods: capabilities.drop lacks ALL"


def test_s01_finds_a_namespace_that_does_not_enforce_restricted_although_its_pods_satisfy_it() -> None:
    name = "pod-security.kubernetes.io/enforce"
    for labels, count in (({name: "privileged"}, 1), ({}, 1), ({name: "restricted"}, 0)):
        namespace = {"kind": "Namespace", "metadata": {"name": "shop", "labels": labels}}
        weak = found(workload(), namespace)
        assert [each.path for each in weak] == ["Namespace shop: security"] * count, labels


@pytest.mark.parametrize(
    ("rule", "count"),
    [
        ({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}, 0),
        ({"apiGroups": ["*"], "resources": ["pods"], "verbs": ["get"]}, 1),
        ({"apiGroups": [""], "resources": ["*"], "verbs": ["get"]}, 1),
        ({"apiGroups": [""], "resources": ["pods"], "verbs": ["*"]}, 1),
        ({"nonResourceURLs": ["/metrics"], "verbs": ["get"]}, 0),
    ],
    ids=["names", "every group", "every resource", "every verb", "a URL"],
)
def test_s01_finds_a_role_with_a_wildcard(rule: dict[str, Any], count: int) -> None:
    role = {"kind": "Role", "metadata": {"name": "a", "namespace": "shop"}, "rules": [rule]}
    cluster_role = {"kind": "ClusterRole", "metadata": {"name": "a"}, "rules": [rule]}
    assert [each.path for each in found(role, cluster_role)] == ["Role shop/a", "ClusterRole a"] * count
