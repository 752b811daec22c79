"""Pods that do one thing and end: once, on a schedule, or only when an operator asks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic_core import to_json
from voice_policies import Duration

from components.files import digest_of
from components.server import Workload

if TYPE_CHECKING:
    from components.component import Resource
    from components.kubernetes.types import ObjectMeta, PodTemplateSpec

NIGHTLY = "0 2 * * *"


@dataclass(frozen=True, kw_only=True)
class _Batch(Workload):
    """Nobody calls these pods, so nothing waits before SIGTERM."""

    job: str | None = None
    """Name of the controller; `None` is the workload's."""
    pre_stop: Duration = Duration("0s")
    shutdown: Duration = Duration("35s")
    deadline: Duration
    """Longest time of a run, its retries included."""

    def metadata_of(self, workload: ObjectMeta) -> ObjectMeta:
        """Name and labels of the controller."""
        return {**workload, "name": self.job or self.name}


@dataclass(frozen=True, kw_only=True)
class Job(_Batch):
    """Runs once, and again when its pod or its files change.

    A Job is immutable, so its name contains a digest of both. A new password changes neither: delete the Job and deploy
    again.
    """

    deadline: Duration = Duration("30m")
    """By default for a first start, in which the server is made too."""
    retries: int = 10

    def controllers(self, metadata: ObjectMeta, template: PodTemplateSpec) -> Iterator[Resource]:
        """The Job."""
        template["spec"]["restartPolicy"] = "OnFailure"
        own = self.metadata_of(metadata)
        digest = digest_of({"template": to_json(template).decode()})
        yield {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {**own, "name": f"{own['name']}-{digest[:8]}"},
            "spec": {
                "backoffLimit": self.retries,
                "activeDeadlineSeconds": self.deadline.whole_seconds(),
                "template": template,
            },
        }


@dataclass(frozen=True, kw_only=True)
class CronJob(_Batch):
    """Runs on a schedule, and is tried three times.

    A suspended one runs when an operator asks, once: `kubectl create job --from=cronjob/NAME JOB`.
    """

    schedule: str = NIGHTLY
    suspended: bool = False
    deadline: Duration = Duration("60m")

    def controllers(self, metadata: ObjectMeta, template: PodTemplateSpec) -> Iterator[Resource]:
        """The CronJob."""
        template["spec"]["restartPolicy"] = "Never"
        deadline = self.deadline.whole_seconds()
        yield {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": self.metadata_of(metadata),
            "spec": {
                "schedule": self.schedule,
                "timeZone": "Etc/UTC",
                "suspend": self.suspended,
                "concurrencyPolicy": "Forbid",
                "startingDeadlineSeconds": deadline,
                "jobTemplate": {
                    "spec": {
                        "backoffLimit": 0 if self.suspended else 2,
                        "activeDeadlineSeconds": deadline,
                        "template": template,
                    }
                },
            },
        }
