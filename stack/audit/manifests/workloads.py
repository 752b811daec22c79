"""T05, T07, P03, S01 on manifests: termination, probes, rollbacks and secrets of pods."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from components.declaration import Location
from stack.audit.finding import Breach
from stack.audit.manifests.known import on_manifests
from stack.audit.pod_security import has_secret
from stack.model.manifests.references import environment
from stack.model.manifests.resources import Container
from stack.model.manifests.system import System, Workload

_SLEEP = re.compile(r"\bsleep\s+(\d+(?:\.\d+)?)([smhd]?)\b")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
"""Unit of a duration of `sleep` → seconds. GNU and BusyBox know the same units."""
_NAMES_A_SECRET = re.compile(
    r"(.*_)?(PASSWORD|PASSWD|PASS|TOKEN)|.*(SECRET_KEY|CLIENT_SECRET|API_?KEY|ACCESS_KEY|PRIVATE_KEY|TLS_KEY)",
    re.IGNORECASE,
)
_HOLDS_A_SECRET = re.compile(
    r"\b(password|passwd|pwd)=(?P<first>[^\s;&$]+)|://[^/@:\s]+:(?P<second>[^/@\s$]+)@", re.IGNORECASE
)
_NO_SECRET = re.compile(r"|true|false|yes|no|on|off|[01]|/.*|.*[$<{].*", re.IGNORECASE)
"""Values that are no secret: empty values, switches, file paths and placeholders."""


def grace_periods_cover_pre_stop(system: System) -> Iterator[Breach | None]:
    """Compare the preStop sleep with the grace period, which includes the sleep."""
    for workload in system.workloads:
        grace = workload.template.spec.termination_grace_period_seconds
        for place, index, container in workload.containers:
            pause = _pause(container)
            if pause:
                text = f"preStop sleeps {pause:g} s ≥ terminationGracePeriodSeconds {grace}"
                where = workload.at(place, index, "lifecycle")
                path = f"{workload.title} → {container.name}.preStop"
                late = Breach(path, text, "terminationGracePeriodSeconds", f"more than {pause:g}", where)
                yield None if pause < grace else late


def _pause(container: Container) -> float:
    """Seconds of all sleeps in the container's preStop handler. 0 without a handler."""
    handler = container.lifecycle.pre_stop if container.lifecycle else None
    if handler is None:
        return 0
    if handler.sleep:
        return handler.sleep.seconds
    command = handler.exec.command if handler.exec else ()
    return sum(float(number) * _SECONDS[unit] for number, unit in _SLEEP.findall(" ".join(command)))


def probes_do_not_overlap(system: System) -> Iterator[Breach | None]:
    """Compare the timeout of each probe with its period."""
    for workload in system.workloads:
        for place, index, container in workload.containers:
            for name, probe in container.probes.items():
                text = f"timeout {probe.timeout_seconds} s ≥ period {probe.period_seconds} s"
                where = workload.at(place, index, name, "timeoutSeconds")
                path = f"{workload.title} → {container.name}.{name}"
                late = Breach(path, text, f"{name}.timeoutSeconds", f"less than {probe.period_seconds}", where)
                yield None if probe.timeout_seconds < probe.period_seconds else late


def revisions_can_be_rolled_back(system: System) -> Iterator[Breach | None]:
    """Find StatefulSets in which a pod that never becomes ready blocks the next revision."""
    for workload in system.workloads:
        if workload.kind == "StatefulSet" and workload.spec.update_strategy.get("type") != "OnDelete":
            policy = workload.spec.pod_management_policy
            text = f"podManagementPolicy {policy}: a pod that never becomes ready blocks the next revision"
            where = workload.manifest.at("spec", "podManagementPolicy")
            ordered = Breach(workload.title, text, "podManagementPolicy", "Parallel", where)
            yield ordered if policy == "OrderedReady" else None


def files_hold_no_secret(system: System) -> Iterator[Breach | None]:
    """Find secrets in Secrets, ConfigMaps and variables, and images with the tag `latest`."""
    for secret in system.secrets:
        for field, entries in (("data", secret.spec.data), ("stringData", secret.spec.string_data)):
            for key, value in entries.items():
                plain = _is_secret(re.sub(r"[-.]", "_", key), str(value or ""))
                text = f"the file contains the value of {key}"
                yield Breach(f"{secret.title}.{key}", text, key, "", secret.manifest.at(field, key)) if plain else None
    for config in system.config_maps:
        for key, value in config.spec.data.items():
            plain = has_secret(str(value)) or _is_secret(re.sub(r"[-.]", "_", key), str(value))
            text = f"the ConfigMap holds a secret in plain text in {key}"
            where = config.manifest.at("data", key)
            yield Breach(f"{config.title}.{key}", text, key, "a Secret", where) if plain else None
    for workload in system.workloads:
        for place, index, container in workload.containers:
            yield from _plain_variables(workload, place, index, container)
    yield from _moving_images(system)


def _plain_variables(workload: Workload, place: str, index: int, container: Container) -> Iterator[Breach | None]:
    values = environment(container, {})
    for number, variable in enumerate(container.env):
        if variable.value_from is None:
            plain = _is_secret(variable.name, values[variable.name])
            path = f"{workload.title} → {container.name}.{variable.name}"
            where = workload.at(place, index, "env", number)
            held = Breach(path, "the variable holds a secret in plain text", "value", "valueFrom.secretKeyRef", where)
            yield held if plain else None


def _moving_images(system: System) -> Iterator[Breach | None]:
    """Find images with the tag `latest`. Other tags are no breach: a registry can make them immutable."""
    users: dict[str, list[tuple[Workload, Location]]] = defaultdict(list)
    for workload in system.workloads:
        for place, index, container in workload.containers:
            users[container.image].append((workload, workload.at(place, index, "image")))
    for image, found in users.items():
        # For an image with a digest, `tag` ends with the digest, so it is not `latest`.
        tag = image.rpartition("/")[2].partition(":")[2] or "latest"
        titles = ", ".join(dict.fromkeys(workload.title for workload, _ in found))
        text = f"the tag latest may be another image at each pull; used by {titles}"
        moving = Breach(f"image {image}", text, "image", "a digest", found[0][1], "warning")
        yield moving if image and tag == "latest" else None


def _is_secret(name: str, value: str) -> bool:
    held = _HOLDS_A_SECRET.search(value)
    return bool(held) or (_NAMES_A_SECRET.fullmatch(name) is not None and not _NO_SECRET.fullmatch(value))


RULES = (
    on_manifests("T05", grace_periods_cover_pre_stop),
    on_manifests("T07", probes_do_not_overlap),
    on_manifests("P03", revisions_can_be_rolled_back),
    on_manifests("S01", files_hold_no_secret),
)
