import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from stack.deploy.operators import OPERATORS
from stack.model.settings import ROOT
from stack.output.difference.sides import render_revision
from tests.cluster import manifests
from tests.cluster.access import Account, Grants, Permission, Question, spelled_out
from tests.cluster.cluster import Applied, Cluster, NodePool
from tests.cluster.conftest import StartCluster
from tests.cluster.manifests import Object, identity, of_kind
from tests.cluster.readiness import unready
from tests.platforms import ENVIRONMENTS, real_environment

pytestmark = pytest.mark.cluster

# No account needs the right to list Secrets, because kubelet gives pods their Secrets as files or variables.
LIST_SECRETS = Permission("list", "", "secrets")
# Dangerous rights, checked for every account in addition to the rights in the Roles and ClusterRoles of the tree.
SENSITIVE = {
    LIST_SECRETS,
    Permission("get", "", "secrets"),
    Permission("list", "", "pods"),
    Permission("create", "", "pods"),
    Permission("create", "", "pods/exec"),
    Permission("create", "", "serviceaccounts/token"),
    Permission("list", "", "configmaps"),
    Permission("patch", "apps", "deployments"),
    Permission("create", "rbac.authorization.k8s.io", "rolebindings"),
    Permission("list", "", "nodes"),
}


@dataclass(frozen=True)
class Deployed:
    environment: str
    tree: Path
    cluster: Cluster
    applied: Applied

    @property
    def objects(self) -> list[Object]:
        return [document.content for document in self.applied.objects]


@pytest.fixture(scope="module", params=[*ENVIRONMENTS, "prod-external"])
def environment(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def prepared_cluster(environment: str, start_cluster: StartCluster) -> Callable[..., AbstractContextManager[Cluster]]:
    @contextmanager
    def prepare(*trees: Path) -> Iterator[Cluster]:
        objects = [document.content for tree in trees for document in manifests.read(tree)]
        with start_cluster() as cluster:
            cluster.add_nodes(NodePool.of(real_environment(environment).settings))
            cluster.add_volumes(list(manifests.claims(objects)))
            yield cluster

    return prepare


@pytest.fixture(scope="module")
def deployed(
    environment: str,
    rendered: Callable[[str], Path],
    prepared_cluster: Callable[..., AbstractContextManager[Cluster]],
    report: Callable[[str], None],
) -> Iterator[Deployed]:
    """The environment is applied, but not yet Ready."""
    tree = rendered(environment)
    with prepared_cluster(tree) as cluster:
        applied = cluster.apply(tree)
        report(f"{environment}: {len(applied.objects)} objects applied")
        yield Deployed(environment, tree, cluster, applied)


@pytest.fixture(scope="module")
def ready(deployed: Deployed) -> Deployed:
    deployed.cluster.wait_ready()
    return deployed


def test_the_api_server_rejects_no_object_and_gives_no_warning(deployed: Deployed) -> None:
    assert deployed.applied.rejected == []
    assert deployed.applied.warnings == []


def test_operators_ship_the_crds_that_the_pulumi_program_looks_up(deployed: Deployed) -> None:
    looked_up = {definition for operator in OPERATORS for definition in operator.definitions}
    shipped = {each["metadata"]["name"] for each in deployed.cluster.kubectl.objects("customresourcedefinitions")}
    assert looked_up <= shipped


def test_every_workload_becomes_ready(ready: Deployed) -> None:
    workloads = {identity(each) for each in of_kind(ready.objects, "Deployment", "StatefulSet", "DaemonSet", "Job")}
    live = ready.cluster.kubectl.objects("deployments,statefulsets,daemonsets,jobs")
    assert workloads
    assert workloads <= {identity(each) for each in live}
    assert unready(live) == []


def test_every_pod_except_node_agents_is_admitted_under_restricted(ready: Deployed) -> None:
    levels = {
        namespace["metadata"]["name"]: namespace["metadata"]["labels"].get("pod-security.kubernetes.io/enforce")
        for namespace in ready.cluster.kubectl.objects("namespaces")
    }
    exposed = [
        pod for pod in ready.cluster.kubectl.objects("pods") if levels[pod["metadata"]["namespace"]] != "restricted"
    ]
    # Agents that read a node's files cannot be restricted. They have their own namespace, so other pods are restricted.
    assert [identity(pod) for pod in exposed if pod["metadata"]["ownerReferences"][0]["kind"] != "DaemonSet"] == []


def test_every_service_with_a_selector_has_endpoints(ready: Deployed) -> None:
    services = [service for service in of_kind(ready.objects, "Service") if service["spec"].get("selector")]
    endpoints = ready.cluster.ready_endpoints()
    assert services
    assert [
        identity(each)
        for each in services
        if not endpoints.get((each["metadata"]["namespace"], each["metadata"]["name"]))
    ] == []


def test_each_account_has_exactly_the_permissions_of_its_roles(ready: Deployed, report: Callable[[str], None]) -> None:
    namespaces = sorted(each["metadata"]["name"] for each in of_kind(ready.objects, "Namespace"))
    declared = [
        Account(each["metadata"]["namespace"], each["metadata"]["name"])
        for each in of_kind(ready.objects, "ServiceAccount")
    ]
    accounts = {*declared, *(Account(namespace, "default") for namespace in namespaces)}
    permissions = spelled_out(of_kind(ready.objects, "Role", "ClusterRole")) | SENSITIVE
    questions = [
        Question(account, namespace, permission)
        for account in sorted(accounts)
        for namespace in namespaces
        for permission in sorted(permissions)
    ]
    grants = Grants([*ready.cluster.kubectl.objects("roles,clusterroles"), *ready.objects])
    answers = dict(zip(questions, ready.cluster.can_i(questions), strict=True))
    assert declared
    assert [question for question, answer in answers.items() if answer != grants.allow(question)] == []
    assert [question for question, answer in answers.items() if answer and question.permission == LIST_SECRETS] == []
    allowed = sum(answers.values())
    report(f"{ready.environment}: {len(questions)} questions about {len(accounts)} accounts, {allowed} allowed")


def test_a_second_apply_changes_nothing(ready: Deployed) -> None:
    before = ready.cluster.contents(ready.applied.objects)
    again = ready.cluster.apply(ready.tree)
    after = ready.cluster.contents(ready.applied.objects)
    assert (again.rejected, again.warnings) == ([], [])
    assert {name: (before[name], after[name]) for name in before if before[name] != after[name]} == {}


def test_a_rollout_at_the_autoscalers_maximum_fits_the_quotas_and_the_nodes(
    ready: Deployed, report: Callable[[str], None]
) -> None:
    cluster = ready.cluster
    limited = {quota["metadata"]["namespace"] for quota in of_kind(ready.objects, "ResourceQuota")}
    assert {pod["metadata"]["namespace"] for pod in cluster.kubectl.objects("pods")} <= limited
    cluster.scale_autoscaled("maxReplicas")
    cluster.wait_ready()
    assert cluster.surge() == []
    report(f"{ready.environment}: quotas and nodes held {len(cluster.kubectl.objects('pods'))} Pods")
    cluster.scale_autoscaled("minReplicas")
    cluster.wait_ready()


def test_a_drain_of_each_node_ends_and_respects_every_disruption_budget(ready: Deployed) -> None:
    cluster = ready.cluster
    for node in cluster.kubectl.objects("nodes"):
        assert cluster.drain(node["metadata"]["name"]) == set()
        cluster.wait_ready()


def test_an_upgrade_changes_objects_in_place(
    environment: str,
    rendered: Callable[[str], Path],
    prepared_cluster: Callable[..., AbstractContextManager[Cluster]],
    tmp_path: Path,
    report: Callable[[str], None],
) -> None:
    if environment not in ENVIRONMENTS:
        pytest.skip("nobody deploys this environment, so there is no earlier version to upgrade from")
    revision = previous_revision(environment)
    render_revision(revision, environment, tmp_path / revision)
    previous, current = tmp_path / revision / "manifests", rendered(environment)
    report(f"{environment}: upgraded from the manifests of {revision[:12]}")
    with prepared_cluster(previous, current) as cluster:
        old = cluster.apply(previous)
        cluster.wait_ready()
        before = uids(cluster, old)
        new = cluster.apply(current, over=old.objects)
        cluster.wait_ready()
        after = uids(cluster, old)
    assert (new.rejected, new.warnings) == ([], [])
    assert after == before


def previous_revision(environment: str) -> str:
    """The second newest commit that changed an environment's snapshot; the newest if there is no other."""
    if git("rev-parse", "--is-shallow-repository") == ["true"]:
        pytest.skip("the clone is shallow, so there is no earlier version to upgrade from")
    # The path is a pattern: the snapshots of dev and prod are folders, but staging's is one file, `staging-prod.txt`.
    return git("log", "--max-count=2", "--format=%H", "--", f"tests/snapshots/{environment}*")[-1]


def git(*arguments: str) -> list[str]:
    done = subprocess.run(["git", *arguments], check=True, capture_output=True, text=True, cwd=ROOT)
    return done.stdout.split()


def uids(cluster: Cluster, applied: Applied) -> dict[str, str]:
    """The UID of each object. It changes if an object is deleted and created again."""
    return {identity(each): each["metadata"]["uid"] for each in cluster.stored(applied.objects)}
