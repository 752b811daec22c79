"""Alerts about the parts that all services need: cluster, volumes, certificates and telemetry."""

from __future__ import annotations

from components.observability.rules import Alert
from stack.voiceassistant.platform_team import WATCHDOG
from stack.voiceassistant.platform_team import platform_alert as _platform

__all__ = ["PLATFORM_ALERTS"]

_CERTIFICATE = "probe_ssl_earliest_cert_expiry - time()"
_FREE = "kubelet_volume_stats_available_bytes / kubelet_volume_stats_capacity_bytes"
_VOLUME = "{{ $labels.namespace }}/{{ $labels.persistentvolumeclaim }}"
_RENEWAL = (
    "Gateway or public entrance: rotate the secret `gateway-tls`. Elasticsearch node: rotate `elasticsearch-transport`"
    " (see docs/deploy.md). External store: ask its owner for a new certificate"
)


PLATFORM_ALERTS = (
    Alert(
        name="Watchdog",
        expression="vector(1)",
        severity="warning",
        team=WATCHDOG,
        summary="Always fires. A receiver outside the platform raises an alarm when this alert stops",
        action="If this alert stops, check that Prometheus and Alertmanager run; then check the path to the receiver",
    ),
    _platform(
        "ContainerRestarts",
        "warning",
        "increase(kube_pod_container_status_restarts_total[1h]) > 3"
        " or increase(kube_pod_init_container_status_restarts_total[1h]) > 3",
        "0s",
        "{{ $labels.namespace }}/{{ $labels.pod }}: {{ $labels.container }} restarted {{ $value | humanize }} times"
        " in an hour",
        "`kubectl describe pod` shows the last state: out of memory, a failed probe, or an error (see the log)",
    ),
    _platform(
        "PodPending",
        "warning",
        'kube_pod_status_phase{phase="Pending"} == 1',
        "15m",
        "{{ $labels.namespace }}/{{ $labels.pod }} has not started for a quarter of an hour",
        "`kubectl describe pod` says why: no node has room, a volume is missing, or the image cannot be pulled",
    ),
    _platform(
        "ReplicasMissing",
        "warning",
        "kube_deployment_spec_replicas > kube_deployment_status_replicas_available"
        " or kube_statefulset_replicas > kube_statefulset_status_replicas_ready",
        "15m",
        "{{ $labels.namespace }}/{{ $labels.deployment }}{{ $labels.statefulset }} has fewer ready pods than declared",
        "`kubectl get pods` shows the pod that is not ready; look at its events and its log",
    ),
    _platform(
        "RedundancyLost",
        "critical",
        # Two of three members of a quorum system can still agree; one member cannot.
        "kube_deployment_status_replicas_available < 2 and kube_deployment_spec_replicas > 1"
        " or 2 * kube_statefulset_status_replicas_ready <= kube_statefulset_replicas + 1"
        " and kube_statefulset_replicas > 1",
        "10m",
        "{{ $labels.namespace }}/{{ $labels.deployment }}{{ $labels.statefulset }} has stopped, or stops if it"
        " loses one more pod",
        "`kubectl get pods` shows the missing pod. Delay rollouts and drains of nodes until this pod is back",
    ),
    _platform(
        "NodeNotReady",
        "warning",
        'kube_node_status_condition{condition="Ready",status="true"} == 0',
        "5m",
        "Node {{ $labels.node }} is not ready: Kubernetes evicts its pods after five minutes",
        "`kubectl describe node` says why. If the machine no longer exists, delete the Node to free its volumes",
    ),
    _platform(
        "NodeUnderPressure",
        "warning",
        'kube_node_status_condition{condition=~".+Pressure",status="true"} == 1',
        "5m",
        "Node {{ $labels.node }} reports {{ $labels.condition }}. Under pressure kubelet evicts pods",
        "`kubectl describe node` shows the CPU and memory requests of the node's pods. Move the largest pod, or replace"
        " the node",
    ),
    _platform(
        "AutoscalerBlocked",
        "warning",
        'kube_horizontalpodautoscaler_status_condition{condition=~"ScalingActive|AbleToScale",status="false"} == 1',
        "15m",
        "{{ $labels.namespace }}/{{ $labels.horizontalpodautoscaler }} cannot scale: {{ $labels.condition }} is false",
        "`kubectl describe hpa` says why. If the autoscaler gets no metrics, check metrics-server",
    ),
    _platform(
        "JobFailing",
        "warning",
        "kube_job_status_failed > 0 unless on (namespace, job_name) kube_job_status_succeeded > 0",
        "5m",
        "A pod of the job {{ $labels.namespace }}/{{ $labels.job_name }} failed, and none has succeeded",
        "Read the log of its last pod, fix the cause, and start the job again; see docs/deploy.md",
    ),
    _platform(
        "ScheduledJobOverdue",
        "warning",
        # The age of a job that has never succeeded counts from its creation. A suspended job is left out: a person
        # starts it.
        "time() - (kube_cronjob_status_last_successful_time or kube_cronjob_created) > 2 * 86400"
        " unless on (namespace, cronjob) kube_cronjob_spec_suspend == 1",
        "1h",
        "{{ $labels.namespace }}/{{ $labels.cronjob }} has not succeeded for two days",
        "`kubectl get jobs` shows its last runs; read the log of the failed run",
    ),
    _platform(
        "AutoscalerAtMaximum",
        "warning",
        "kube_horizontalpodautoscaler_status_current_replicas >= kube_horizontalpodautoscaler_spec_max_replicas"
        " > kube_horizontalpodautoscaler_spec_min_replicas",
        "15m",
        "{{ $labels.namespace }}/{{ $labels.horizontalpodautoscaler }} runs at its maximum number of replicas",
        "If the load is real, raise the maximum in the catalogue; `voice check` says whether quota and nodes suffice",
    ),
    _platform(
        "VolumeFilling",
        "warning",
        f"predict_linear(kubelet_volume_stats_available_bytes[6h], 4 * 86400) < 0 and {_FREE} < 0.5",
        "1h",
        f"{_VOLUME} will be full within four days at the rate of the last six hours",
        "Shorten the retention or grow the claim: the volume grows in place if its storage class allows it",
    ),
    _platform(
        "VolumeFull",
        "critical",
        f"{_FREE} < 0.1",
        "5m",
        f"{_VOLUME} has {{{{ $value | humanizePercentage }}}} of its space left",
        "Grow the claim now: a store with a full volume stops, and some stores do not recover by themselves",
    ),
    _platform(
        "CertificateExpires",
        "warning",
        f"{_CERTIFICATE} < 21 * 86400",
        "1h",
        "The certificate of {{ $labels.instance }} expires in {{ $value | humanizeDuration }}",
        _RENEWAL,
    ),
    _platform(
        "CertificateExpires",
        "critical",
        f"{_CERTIFICATE} < 3 * 86400",
        "0s",
        "The certificate of {{ $labels.instance }} expires in {{ $value | humanizeDuration }}",
        f"Act today: clients and Elasticsearch nodes refuse an expired certificate. {_RENEWAL}",
    ),
    _platform(
        "CollectorQueueFilling",
        "warning",
        "otelcol_exporter_queue_size / otelcol_exporter_queue_capacity > 0.5",
        "5m",
        "{{ $labels.exporter }} in {{ $labels.pod }}: {{ $value | humanizePercentage }} of the queue is used",
        "The backend is down or too slow. Restore it before the queue is full, or the Collector refuses data",
    ),
    _platform(
        "TelemetryLost",
        "critical",
        'sum by (job, exporter) (rate({__name__=~"otelcol_exporter_(send|enqueue)_failed_.+"}[5m])) > 0',
        "5m",
        "{{ $labels.exporter }} drops or refuses {{ $value | humanize }} items a second",
        "Read the Collector's log: either the queue is full, or the backend rejects the data permanently",
    ),
    _platform(
        "LogLinesLost",
        "warning",
        "sum by (namespace, pod) (increase(fluentbit_output_dropped_records_total[15m])) > 0",
        "0s",
        "{{ $labels.namespace }}/{{ $labels.pod }} dropped {{ $value | humanize }} log lines of its node",
        "The pod's log has the cause: no Collector answered for an hour, the buffer was full, or a line was refused",
    ),
    _platform(
        "RulesFailing",
        "critical",
        "increase(prometheus_rule_evaluation_failures_total[10m]) > 0",
        "5m",
        "{{ $labels.pod }} cannot evaluate a rule of {{ $labels.rule_group }}: alerts that need this rule cannot fire",
        "Prometheus's Rules page shows the error; a duplicate series is the usual cause",
    ),
    _platform(
        "ConfigurationRefused",
        "warning",
        "prometheus_config_last_reload_successful == 0",
        "5m",
        "{{ $labels.pod }} keeps its old configuration: it refuses the new one",
        "The pod's log names the line; `promtool check config` finds the same error before a deployment",
    ),
    _platform(
        "AllowListRefused",
        "warning",
        # Envoy counts an unparsable file as `update_failure`, and any other refused file as `update_rejected`. The
        # difference of attempts and successes includes both.
        "increase(envoy_listener_manager_lds_update_attempt[15m])"
        " > increase(envoy_listener_manager_lds_update_success[15m])"
        " or increase(envoy_cluster_manager_cds_update_attempt[15m])"
        " > increase(envoy_cluster_manager_cds_update_success[15m])",
        "0s",
        "{{ $labels.pod }} keeps its old list of callers and hosts: Envoy refuses the new one",
        "The pod's log names the field. Until the list is corrected, new callers and calls to new hosts are refused",
    ),
    _platform(
        "NotificationsFailing",
        "critical",
        "sum by (job, namespace, pod, integration) (rate(alertmanager_notifications_failed_total[5m])) > 0",
        "5m",
        "{{ $labels.pod }} cannot send notifications over {{ $labels.integration }}",
        "Check the receiver's address, and that the setting notifications.network contains this address",
    ),
)
