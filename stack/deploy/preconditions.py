"""Preconditions of a deployment, in addition to the checks of `voice render`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import TYPE_CHECKING

from voice_policies import Fault, InvalidInputError

from stack.audit import audit_outcome
from stack.audit.outcome import Outcome
from stack.deploy.cluster_faults import cluster_faults
from stack.deploy.stack_secrets import SecretKey, missing_faults, unread_faults
from stack.model.image_lock import images
from stack.model.platform import Platform

if TYPE_CHECKING:
    from stack.deploy.configuration import Configuration, SecretValues


def refuse_unfit(platform: Platform, configuration: Configuration, *, on: date) -> None:
    """Refuse a deployment that would fail or do harm. Raises `InvalidInputError` with every reason.

    The stack must name a context whose cluster `kubectl` can query. The cluster must have the identifier that the stack
    declares, the custom resources of the operators, and the prerequisites (`prerequisite_faults`). No volume may
    shrink. The cluster must be able to grow each volume that the update grows. Each secret needs a value, and each
    value must belong to a declared secret. A strict profile also requires:

    - Each image is pinned by digest.
    - Each finding of severity error or critical has an acceptance that is valid on the day `on`.
    - Each acceptance matches a finding.
    """
    faults = [*cluster_faults(platform, configuration), *_secret_faults(platform, configuration.secrets)]
    if platform.environment.profile.strict:
        faults += [*_image_faults(platform), *_finding_faults(audit_outcome(platform, on=on))]
    if faults:
        raise InvalidInputError(configuration.source, faults)


def _secret_faults(platform: Platform, values: SecretValues) -> Iterator[Fault]:
    given = {SecretKey(secret, key) for secret, keys in values.items() for key, value in keys.items() if value}
    yield from missing_faults(platform, given)
    yield from unread_faults(platform, given)


def _image_faults(platform: Platform) -> Iterator[Fault]:
    for component, resources in platform.resources:
        for image in dict.fromkeys(images(resources)):
            if "@sha256:" not in image:
                yield Fault(f"{component.name}.image", f"is {image!r}", "expected a digest: run `voice images lock`")


def _finding_faults(outcome: Outcome) -> Iterator[Fault]:
    for judged in outcome.grave:
        finding = judged.finding
        expired = f" (the acceptance expired on {judged.acceptance.expires})" if judged.acceptance else ""
        yield Fault(
            finding.path,
            f"{finding.rule} ({finding.severity}): {finding.arithmetic}{expired}",
            f"change {finding.field}, or accept the finding in accepted_findings with a reason and an expiry day",
        )
    for entry in outcome.unused:
        value = f"accepts {entry.rule} at {entry.path!r}"
        yield Fault("config.voiceassistant:accepted_findings", value, "no such finding: remove the acceptance")
