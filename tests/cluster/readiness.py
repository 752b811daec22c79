from collections.abc import Iterable

from tests.cluster.manifests import Object, identity

JUDGED_KINDS = (
    "deployments,statefulsets,daemonsets,jobs,pods,persistentvolumeclaims,services,"
    "horizontalpodautoscalers,poddisruptionbudgets"
)


# Label of Pods that an operator creates. No operator runs here, so disruption budgets for these Pods select no Pod.
OPERATOR_POD_LABEL = "voiceassistant.dev/store"


def unready(objects: Iterable[Object]) -> list[str]:
    """One line for every object that does not match its spec yet."""
    return [f"{identity(content)}: {reason}" for content in objects if (reason := _reason(content))]


def unsurged(objects: Iterable[Object]) -> list[str]:
    """One line for every Deployment without a new Pod during a rollout, and for every Pod that is not running."""
    complaints = []
    for content in objects:
        if content["kind"] == "Pod":
            complaints += unready([content])
        elif not content["status"].get("updatedReplicas") or _is_behind(content):
            complaints.append(f"{identity(content)}: no new Pod{_conditions(content['status'])}")
    return complaints


def breached(budgets: Iterable[Object]) -> list[str]:
    """One line for every disruption budget with fewer healthy Pods than it requires."""
    return [f"{identity(budget)}: {reason}" for budget in budgets if (reason := _shortfall(budget["status"]))]


def _reason(content: Object) -> str:
    if _is_behind(content):
        return "its controller has not seen the last change"
    return _REASONS[content["kind"]](content["spec"], content.get("status", {}))


def _is_behind(content: Object) -> bool:
    generation: int = content["metadata"].get("generation", 0)
    seen: int = content.get("status", {}).get("observedGeneration", generation)
    return seen < generation


def _replicas(spec: Object, status: Object) -> str:
    wanted = spec["replicas"]
    counts = {name: status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")}
    return "" if set(counts.values()) == {wanted} else f"{wanted} replicas wanted, {counts}{_conditions(status)}"


def _daemon_set(_spec: Object, status: Object) -> str:
    wanted = status["desiredNumberScheduled"]
    counts = {name: status.get(name, 0) for name in ("updatedNumberScheduled", "numberAvailable")}
    return "" if set(counts.values()) == {wanted} else f"{wanted} Pods wanted, {counts}{_conditions(status)}"


def _job(spec: Object, status: Object) -> str:
    wanted, done = spec.get("completions", 1), status.get("succeeded", 0)
    return "" if done >= wanted else f"{done} of {wanted} completed{_conditions(status)}"


def _pod(_spec: Object, status: Object) -> str:
    if status["phase"] in {"Running", "Succeeded"}:
        return ""
    return "; ".join(
        [status["phase"], *(text for each in status.get("conditions", []) if (text := each.get("message")))]
    )


def _claim(_spec: Object, status: Object) -> str:
    return "" if status.get("phase") == "Bound" else "not bound to a volume"


def _service(spec: Object, status: Object) -> str:
    waits = spec["type"] == "LoadBalancer" and not status.get("loadBalancer", {}).get("ingress")
    return "no load balancer address" if waits else ""


def _autoscaler(spec: Object, status: Object) -> str:
    wanted, current = spec.get("minReplicas", 1), status.get("currentReplicas", 0)
    return "" if current >= wanted else f"{current} replicas, at least {wanted} wanted"


def _disruption_budget(spec: Object, status: Object) -> str:
    if status.get("expectedPods"):
        return _shortfall(status)
    return "" if OPERATOR_POD_LABEL in spec["selector"]["matchLabels"] else "selects no Pod"


def _shortfall(status: Object) -> str:
    healthy, wanted = status["currentHealthy"], status["desiredHealthy"]
    return "" if healthy >= wanted else f"{healthy} healthy Pods, {wanted} wanted"


def _conditions(status: Object) -> str:
    """The controller's reason for a lack of progress, if there is one."""
    conditions = [each for each in status.get("conditions", []) if each["type"] in {"ReplicaFailure", "FailureTarget"}]
    return "".join(f"; {each['message']}" for each in conditions)


_REASONS = {
    "Deployment": _replicas,
    "StatefulSet": _replicas,
    "DaemonSet": _daemon_set,
    "Job": _job,
    "Pod": _pod,
    "PersistentVolumeClaim": _claim,
    "Service": _service,
    "HorizontalPodAutoscaler": _autoscaler,
    "PodDisruptionBudget": _disruption_budget,
}
