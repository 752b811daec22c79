"""S01: secrets in plain text, images that may change, and containers that Pod Security refuses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from stack.audit.finding import Breach, Rule
from stack.audit.rendered import Workload, rendered
from stack.model.image_lock import images
from stack.model.platform import Platform

SECRET = re.compile(r"(?i)(password|passwd|secret|token|api_?key|access_?key|secret_?key|private_?key)$")
"""Finds the names of variables that contain a secret, such as `DB_PASSWORD`. Only the end of the name counts."""
PLAIN = re.compile(
    r"""(?x)
    -----BEGIN\ [A-Z ]*PRIVATE\ KEY-----
    | ://[^/@:\s]*:(?![$<{%])[^/@\s]+@
    | :(?![$<{%])[^/@:\s]+@(?:tcp|unix)\(
    """
)
"""Finds a private key, or a password in a URL or in a data source name of Go's MySQL driver."""
SETTING = re.compile(
    r"""(?x)
    (?:
        (?:password|passwd|client[_-]?secret|(?:api|access|private|secret)[_-]?key)["']?(?:[\ \t]*=|:)
        | (?:secret|token)["']?[\ \t]*=
    )
    [\ \t]*["']?(?!(?:true|false|null|none)\b|phc_|pk_)[^\s"'$<{%/:;,&()[\]][^\s"';,&()[\]]*+(?![(\[])
    """
)
"""Finds a setting with a secret, such as `api_key=value` or `password: value`. The text must be in lower case.

A path, a placeholder or a function call is no secret, and neither are the public keys of PostHog (`phc_`) and Stripe
(`pk_`). A name that ends in `secret` or `token` does not count before a colon: in YAML `secret:` often names an
object, and `first_token:` is a latency. Exception: `client_secret:` counts.
"""
ARGUMENT = re.compile(r"(?i)^--?[\w.-]*(password|passwd|secret|token|api-?key)[= ][^$/\s]")
"""Finds an argument of a command that contains a secret. A path or a reference to a variable is no secret."""
VOLUMES = {
    "name",
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
"""Fields of a volume that `restricted` admits: `name`, and one field for each permitted kind of volume."""
SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_syncookies",
}
"""Kernel parameters that `restricted` admits."""
SELINUX_TYPES = {None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
CONFINED = {"RuntimeDefault", "Localhost"}
"""Types of seccomp and AppArmor profiles that `restricted` admits."""
APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
"""Prefix of the annotations that set AppArmor profiles in older versions of Kubernetes."""
HANDLERS = ("livenessProbe", "readinessProbe", "startupProbe", "postStart", "preStop")
RIGHTS = ("apiGroups", "resources", "verbs")
ENFORCED = "pod-security.kubernetes.io/enforce"


def no_plain_secret(platform: Platform) -> Iterator[Breach | None]:
    """Check that no Secret, ConfigMap, variable or argument has a secret in plain text."""
    found = rendered(platform)
    for secret in found.of_kind("Secret"):
        written = bool(secret.get("data") or secret.get("stringData"))
        path = f"Secret {secret['metadata']['name']}"
        yield Breach(path, "a rendered file contains the values of the Secret", "secrets") if written else None
    settings = {
        (each["metadata"].get("namespace"), each["metadata"]["name"]): each.get("data", {})
        for each in found.of_kind("ConfigMap")
    }
    for (namespace, name), data in settings.items():
        plain = [key for key, value in data.items() if has_secret(value)]
        text = f"secrets in plain text: {', '.join(plain)}"
        yield Breach(f"ConfigMap {namespace}/{name}", text, "data") if plain else None
    for workload in found.pods:
        for container in _containers(workload):
            path = f"{workload.path}: {container['name']}"
            for field, names in _plain(workload.namespace, container, settings).items():
                text = f"secrets in plain text: {', '.join(names)}"
                yield Breach(f"{path}.{field}", text, "env[].valueFrom.secretKeyRef") if names else None


def _plain(
    namespace: str, container: Mapping[str, Any], settings: Mapping[tuple[str, str], Mapping[str, str]]
) -> dict[str, list[str]]:
    """Field of a container → the variables or arguments with a secret in plain text."""
    variables = dict(_variables(namespace, container, settings))
    arguments = [*container.get("command", ()), *container.get("args", ())]
    return {
        "env": [name for name, value in variables.items() if value and (SECRET.search(name) or has_secret(value))],
        "args": [re.split("[= ]", each)[0] for each in arguments if ARGUMENT.search(each) or has_secret(each)],
    }


def has_secret(text: str) -> bool:
    """True if a text contains a private key or the value of a secret."""
    return bool(PLAIN.search(text) or SETTING.search(text.lower()))


def _containers(workload: Workload) -> Iterator[Mapping[str, Any]]:
    yield from workload.pod["containers"]
    yield from workload.pod.get("initContainers", ())


def _variables(
    namespace: str, container: Mapping[str, Any], settings: Mapping[tuple[str, str], Mapping[str, str]]
) -> Iterator[tuple[str, str | None]]:
    """Each variable's name and value. The value is `None` if it is in no rendered file, for example in a Secret."""
    for source in container.get("envFrom", ()):
        name = source.get("configMapRef", {}).get("name")
        for key, value in settings.get((namespace, name), {}).items():
            yield f"{source.get('prefix', '')}{key}", value
    for variable in container.get("env", ()):
        reference = variable.get("valueFrom", {}).get("configMapKeyRef", {})
        named = settings.get((namespace, reference.get("name")), {}).get(reference.get("key"))
        yield variable["name"], variable.get("value") or named


def pinned(platform: Platform) -> Iterator[Breach | None]:
    """Check that every image has a digest, if the profile is strict."""
    if not platform.environment.profile.strict:
        return
    found = sorted(set(images(rendered(platform).everything)))
    without = [image for image in found if "@sha256:" not in image]
    text = f"{len(without)} of {len(found)} images have no digest: {', '.join(without)}"
    yield Breach("images.lock.yaml", text, "images.lock.yaml: digests", "voice images lock") if without else None


def restricted(platform: Platform) -> Iterator[Breach | None]:
    """Check that the standard `restricted` admits every pod, except in namespaces that enforce another standard.

    Also check that every namespace enforces `restricted`, unless `restricted` refuses a pod of the namespace.
    """
    found = rendered(platform)
    pods = [(workload, sorted({*_of_pod(workload), *_of_containers(workload)})) for workload in found.pods]
    standards: dict[str, str | None] = {
        namespace["metadata"]["name"]: namespace["metadata"].get("labels", {}).get(ENFORCED)
        for namespace in found.of_kind("Namespace")
    }
    for workload, reasons in pods:
        if standards.get(workload.namespace) in {None, "restricted"}:
            text = f"the Pod Security Standard `restricted` refuses the pods: {', '.join(reasons)}"
            yield Breach(f"{workload.path}: security", text, "securityContext") if reasons else None
    for namespace, standard in standards.items():
        needed = any(reasons for workload, reasons in pods if workload.namespace == namespace)
        text = f"the namespace enforces {standard or 'no standard'}, although `restricted` admits all of its pods"
        weak = Breach(f"Namespace {namespace}: security", text, f"label {ENFORCED}", "restricted")
        yield None if needed or standard == "restricted" else weak


def roles_name_their_rights(platform: Platform) -> Iterator[Breach | None]:
    """Check that no role grants `*`: every verb, every resource or every API group."""
    for kind in ("Role", "ClusterRole"):
        for role in rendered(platform).of_kind(kind):
            namespace, name = role["metadata"].get("namespace", ""), role["metadata"]["name"]
            wild = any("*" in rule.get(field, ()) for rule in role["rules"] for field in RIGHTS)
            found = Breach(
                f"{kind} {namespace}/{name}".replace(" /", " "), "a rule of the role grants * instead of names", "rules"
            )
            yield found if wild else None


def _of_pod(workload: Workload) -> Iterator[str]:
    context = workload.pod.get("securityContext", {})
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if workload.pod.get(field):
            yield field
    for volume in workload.pod.get("volumes", ()):
        yield from volume.keys() - VOLUMES
    yield from (f"sysctl {each['name']}" for each in context.get("sysctls", ()) if each["name"] not in SYSCTLS)
    for name, profile in workload.spec["template"].get("metadata", {}).get("annotations", {}).items():
        if name.startswith(APPARMOR) and profile != "runtime/default" and not profile.startswith("localhost/"):
            yield f"AppArmor profile {profile}"
    yield from _of_context(context)


def _of_containers(workload: Workload) -> Iterator[str]:
    of_pod = workload.pod.get("securityContext", {})
    for container in _containers(workload):
        context: Mapping[str, Any] = {**of_pod, **container.get("securityContext", {})}
        capabilities = context.get("capabilities", {})
        if context.get("privileged"):
            yield "privileged"
        if context.get("allowPrivilegeEscalation") is not False:
            yield "allowPrivilegeEscalation is not false"
        if not context.get("runAsNonRoot"):
            yield "runAsNonRoot is not true"
        if "ALL" not in capabilities.get("drop", ()):
            yield "capabilities.drop lacks ALL"
        yield from (f"the capability {each}" for each in capabilities.get("add", ()) if each != "NET_BIND_SERVICE")
        if context.get("seccompProfile", {}).get("type") not in CONFINED:
            yield "seccompProfile is neither RuntimeDefault nor Localhost"
        if context.get("procMount", "Default") != "Default":
            yield f"procMount {context['procMount']}"
        yield from (f"hostPort {port['hostPort']}" for port in container.get("ports", ()) if port.get("hostPort"))
        yield from _of_context(context)
        yield from _of_handlers(container)


def _of_context(context: Mapping[str, Any]) -> Iterator[str]:
    """The fields of a pod's or container's security context that `restricted` refuses."""
    if context.get("runAsUser") == 0:
        yield "runAsUser is 0"
    if context.get("appArmorProfile", {}).get("type", "RuntimeDefault") not in CONFINED:
        yield "appArmorProfile is neither RuntimeDefault nor Localhost"
    selinux = context.get("seLinuxOptions", {})
    if selinux.get("type") not in SELINUX_TYPES or selinux.get("user") or selinux.get("role"):
        yield "seLinuxOptions"
    if context.get("windowsOptions", {}).get("hostProcess"):
        yield "windowsOptions.hostProcess"


def _of_handlers(container: Mapping[str, Any]) -> Iterator[str]:
    """Probes and hooks that make kubelet connect to another host than the pod."""
    handlers = {**container, **container.get("lifecycle", {})}
    for name in HANDLERS:
        for action in ("httpGet", "tcpSocket"):
            if handlers.get(name, {}).get(action, {}).get("host"):
                yield f"host of {name}"


RULES = (
    Rule(
        id="S01",
        title="no secret is in plain text, images have digests, and pods have no excess privileges",
        severity="error",
        rationale="a secret in a file leaks, a tag may get another image, and a privileged pod controls its node",
        source="Kubernetes, Pod Security Standards (restricted)",
        violates="a container with allowPrivilegeEscalation: true",
        holds="the same container with allowPrivilegeEscalation: false",
        check=lambda platform: (
            *no_plain_secret(platform),
            *pinned(platform),
            *restricted(platform),
            *roles_name_their_rights(platform),
        ),
    ),
)
