"""A control plane on loopback: etcd, API server, controller manager and scheduler. kwok replaces kubelets."""

import json
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.cluster import toolchain
from tests.cluster.cluster import Cluster
from tests.cluster.kubectl import Kubectl
from tests.cluster.processes import Processes
from tests.loopback import free_port

LOAD_BALANCER_STAGES = Path(__file__).parent / "stages.yaml"
READY_SECONDS = 60.0
# user -> group. The API server creates a ClusterRole for each of the two `system:` users.
USERS = {
    "admin": "system:masters",
    "kwok": "system:masters",
    "system:kube-controller-manager": "",
    "system:kube-scheduler": "",
}


@contextmanager
def control_plane() -> Iterator[Cluster]:
    """Starts a control plane without nodes. At the end, also after a failure, stops it and deletes its data.

    Raises:
        toolchain.ToolchainError: its programs are missing and cannot be built.
        processes.StartError: one of its servers did not start.
    """
    programs = toolchain.ensure_built(toolchain.CONTROL_PLANE)
    with tempfile.TemporaryDirectory(prefix="control-plane-") as name, Processes(Path(name)) as processes:
        folder = Path(name)
        port = free_port()
        etcd = _start_etcd(processes, programs, folder)
        tokens = _write_credentials(folder)
        processes.start(programs / "kube-apiserver", *_api_server_arguments(folder, etcd, port))
        processes.wait_until((folder / "apiserver.crt").exists, "the API server's certificate", READY_SECONDS)
        kubeconfigs = {user: _write_kubeconfig(folder, port, user, token) for user, token in tokens.items()}
        kubectl = Kubectl(kubeconfigs["admin"])
        processes.wait_until(kubectl.server_is_ready, "the API server", READY_SECONDS)
        _start_controllers(processes, programs, folder, kubeconfigs)
        cluster = Cluster(kubectl)
        # The controller manager creates this account. The API server refuses a Pod whose ServiceAccount does not exist.
        processes.wait_until(
            lambda: kubectl.exists("serviceaccount", "default", "default"), "the controller manager", READY_SECONDS
        )
        cluster.add_default_storage_class()
        cluster.add_definitions(toolchain.ensure_built(toolchain.OPERATORS) / "definitions.yaml")
        yield cluster


def _start_etcd(processes: Processes, programs: Path, folder: Path) -> str:
    clients, peers = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    processes.start(
        programs / "etcd",
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls={clients}",
        f"--advertise-client-urls={clients}",
        f"--listen-peer-urls={peers}",
        f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster=default={peers}",
        "--unsafe-no-fsync",
    )
    return clients


def _write_credentials(folder: Path) -> dict[str, str]:
    tokens = {user: secrets.token_urlsafe(32) for user in USERS}
    lines = [f'{token},{user},{user},"{USERS[user]}"' for user, token in tokens.items()]
    (folder / "tokens.csv").write_text("\n".join(lines))
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    (folder / "service-accounts.key").write_bytes(key)
    return tokens


def _api_server_arguments(folder: Path, etcd: str, port: int) -> list[str]:
    return [
        f"--etcd-servers={etcd}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={folder}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--anonymous-auth=false",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction,PodSecurity,ResourceQuota,LimitRanger,ServiceAccount",
        # Real clusters set this flag. Without it the API server refuses privileged Pods itself, and the tests could not
        # see that Pod Security refuses them.
        "--allow-privileged=true",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={folder / 'service-accounts.key'}",
        f"--service-account-signing-key-file={folder / 'service-accounts.key'}",
        "--service-cluster-ip-range=10.96.0.0/16",
        # The Service `kubernetes` would get a loopback endpoint, which validation refuses.
        "--endpoint-reconciler-type=none",
    ]


def _write_kubeconfig(folder: Path, port: int, user: str, token: str) -> Path:
    path = folder / f"{user.replace(':', '-')}.kubeconfig"
    cluster = {"server": f"https://127.0.0.1:{port}", "certificate-authority": str(folder / "apiserver.crt")}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
        "current-context": "test",
    }
    path.write_text(json.dumps(config))
    return path


def _start_controllers(processes: Processes, programs: Path, folder: Path, kubeconfigs: dict[str, Path]) -> None:
    processes.start(
        programs / "kube-controller-manager",
        f"--kubeconfig={kubeconfigs['system:kube-controller-manager']}",
        f"--service-account-private-key-file={folder / 'service-accounts.key'}",
        f"--root-ca-file={folder / 'apiserver.crt'}",
        "--use-service-account-credentials",
        "--leader-elect=false",
        "--secure-port=0",
        "--horizontal-pod-autoscaler-sync-period=2s",
        "--pvclaimbinder-sync-period=2s",
    )
    processes.start(
        programs / "kube-scheduler",
        f"--kubeconfig={kubeconfigs['system:kube-scheduler']}",
        "--leader-elect=false",
        "--secure-port=0",
    )
    processes.start(
        programs / "kwok",
        f"--kubeconfig={kubeconfigs['kwok']}",
        f"--config={programs / 'stages.yaml'}",
        f"--config={LOAD_BALANCER_STAGES}",
        "--manage-all-nodes",
        # Without leases the node controller marks the nodes unhealthy every minute, and their Pods not Ready.
        "--node-lease-duration-seconds=40",
        "--cidr=10.244.0.0/16",
    )
