"""What an environment is: counts, sizes, quotas and database limits.

dev fits a laptop: one replica of everything and a fraction of the requests. staging is prod's shape at half its
height. prod is as the catalogue says, N+1 everywhere.
"""

from __future__ import annotations

from typing import Literal

from voice_policies import Bytes, ClosedModel, Cpu

from components.container import Image
from components.images import ThirdPartyImage
from components.namespace import Quota
from components.node import Replicas, Service, Sizing
from stack.model.image_lock import ImageLock, load_lock
from stack.model.settings import Settings

DEV_CPU_SHARE = 0.1
DEV_MEMORY_SHARE = 0.25
"""Of the catalogue's requests: an idle service needs a fraction of what a loaded one asks for. Limits stay."""
N_PLUS_ONE = 2
MESH_PROXY = Sizing.of(cpu=("50m", "500m"), memory=("64Mi", "256Mi"))
"""Half of what Istio asks for by itself (100m, 128Mi): each proxy knows its own callees alone."""


class DatabaseLimits(ClosedModel):
    """What PostgreSQL and its pooler admit."""

    max_connections: int = 200
    reserved: int = 13
    """Superuser (3) and the operator's, exporter's and replication's own (10)."""
    poolers: int
    """0 where the services connect to the server itself."""
    pool_size: int
    """Server connections of one pooler for each database; without a pooler, of all that connect as its role."""
    max_client_connections: int = 0
    """Clients of one pooler; with N+1 poolers one of them must hold all."""

    @property
    def role_limit(self) -> int:
        """Most connections of one role."""
        return self.pool_size * max(1, self.poolers)


class Environment(ClosedModel):
    """Settings and the rules that follow from them."""

    settings: Settings
    quotas: dict[str, Quota]
    """Of each namespace that is ours."""
    database: DatabaseLimits
    images: ImageLock

    @property
    def name(self) -> str:
        """`dev`, `staging` or `prod`."""
        return self.settings.environment

    def replicas(self, service: Service) -> Replicas:
        """How many replicas of a service run here."""
        if override := self.settings.replicas.get(service.name):
            return override
        declared = service.replicas
        match self.name:
            case "dev":
                return Replicas(min=1, max=1)
            case "staging":
                return Replicas(min=N_PLUS_ONE, max=max(N_PLUS_ONE, declared.max // 2))
            case _:
                return declared

    def sizing(self, service: Service) -> Sizing:
        """What one replica of a service requests here."""
        return self.scaled(service.sizing)

    def scaled(self, declared: Sizing) -> Sizing:
        """What of a declared size is requested here."""
        if self.name != "dev":
            return declared
        return declared.model_copy(
            update={
                "cpu_request": declared.cpu_request * DEV_CPU_SHARE,
                "memory_request": declared.memory_request * DEV_MEMORY_SHARE,
            }
        )

    @property
    def mesh_proxy(self) -> Sizing | None:
        """Size of the mesh's proxy in each pod; `None` where there is no mesh."""
        return MESH_PROXY if self.settings.mesh else None

    def image(self, service: Service) -> Image:
        """The image of a service, pinned where the lock knows its digest."""
        own = f"{self.settings.image_repository}/{service.name}:{self.settings.image_tag}"
        return self._pinned(self.settings.reference_image or own)

    def third_party_image(self, image: ThirdPartyImage) -> Image:
        """An image that is not ours, pinned likewise."""
        return self._pinned(image.reference)

    def _pinned(self, reference: str) -> Image:
        pull_policy: Literal["IfNotPresent", "Always"] = "IfNotPresent" if self.name == "dev" else "Always"
        return Image(reference=self.images.pinned(reference), pull_policy=pull_policy)


def _quota(cpu: tuple[str, str], memory: tuple[str, str], pods: int) -> Quota:
    return Quota(
        cpu_requests=Cpu(cpu[0]),
        cpu_limits=Cpu(cpu[1]),
        memory_requests=Bytes(memory[0]),
        memory_limits=Bytes(memory[1]),
        pods=pods,
    )


_QUOTAS = {
    "dev": {
        "voice-data": _quota(("2", "10"), ("5Gi", "20Gi"), 24),
        "voice-observability": _quota(("2", "24"), ("8Gi", "40Gi"), 24),
        "voice-egress": _quota(("600m", "6"), ("768Mi", "3Gi"), 6),
        "voice-apps": _quota(("2", "40"), ("12Gi", "80Gi"), 40),
        "voice-gateway": _quota(("700m", "6"), ("2Gi", "6Gi"), 3),
    },
    "staging": {
        "voice-data": _quota(("24", "32"), ("70Gi", "80Gi"), 48),
        "voice-observability": _quota(("24", "48"), ("60Gi", "96Gi"), 60),
        "voice-node-agents": _quota(("2", "20"), ("3Gi", "12Gi"), 40),
        "voice-egress": _quota(("3", "8"), ("3Gi", "5Gi"), 8),
        "voice-apps": _quota(("60", "160"), ("100Gi", "200Gi"), 120),
        "voice-gateway": _quota(("5", "10"), ("5Gi", "10Gi"), 4),
    },
    "prod": {
        "voice-data": _quota(("24", "32"), ("70Gi", "80Gi"), 48),
        "voice-observability": _quota(("24", "48"), ("60Gi", "96Gi"), 60),
        "voice-node-agents": _quota(("2", "20"), ("3Gi", "12Gi"), 40),
        "voice-egress": _quota(("3", "8"), ("3Gi", "5Gi"), 8),
        "voice-apps": _quota(("110", "280"), ("170Gi", "340Gi"), 200),
        "voice-gateway": _quota(("6", "13"), ("6Gi", "12Gi"), 5),
    },
}
"""Room for every workload at its maximum plus one surge pod, which rule D02 adds up, and for pods that are still
stopping: they count until they are gone."""

_DATABASES = {
    # 8 roles × 20 = 160 ≤ 187; 8 services × (1 replica + surge) connect 110 times, none of them more than 20.
    "dev": DatabaseLimits(poolers=0, pool_size=20),
    # 8 databases × 2 poolers × 10 = 160 ≤ 187.
    "staging": DatabaseLimits(poolers=2, pool_size=10, max_client_connections=600),
    "prod": DatabaseLimits(poolers=2, pool_size=10, max_client_connections=1000),
}


def environment(settings: Settings, images: ImageLock | None = None) -> Environment:
    """The environment that `settings` configure; `images` is the committed lock unless another is given."""
    name = settings.environment
    return Environment(
        settings=settings,
        quotas=_QUOTAS[name],
        database=_DATABASES[name],
        images=load_lock() if images is None else images,
    )
