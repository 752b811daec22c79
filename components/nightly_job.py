"""A job that runs every night, or only when an operator asks: `kubectl create job --from=cronjob/NAME JOB`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.component import PART_OF

if TYPE_CHECKING:
    from components.kubernetes.types import CronJob, ObjectMeta, PodSpec

NIGHTLY = "0 2 * * *"
DEADLINE_SECONDS = 3600


def nightly_job(metadata: ObjectMeta, labels: dict[str, str], pod: PodSpec, *, suspended: bool) -> CronJob:
    """`labels` pick its pods. At night it is tried three times; `suspended`, once and on demand alone."""
    pod["restartPolicy"] = "Never"
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": metadata,
        "spec": {
            "schedule": NIGHTLY,
            "timeZone": "Etc/UTC",
            "suspend": suspended,
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": DEADLINE_SECONDS,
            "jobTemplate": {
                "spec": {
                    "backoffLimit": 0 if suspended else 2,
                    "activeDeadlineSeconds": DEADLINE_SECONDS,
                    "template": {
                        "metadata": {"labels": {**labels, "app.kubernetes.io/part-of": PART_OF}},
                        "spec": pod,
                    },
                }
            },
        },
    }
