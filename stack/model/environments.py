"""An environment: its settings and its profile, and the values that follow from both."""

from __future__ import annotations

from pathlib import Path

from voice_policies import ClosedModel

from components.container import Image
from components.images import ThirdPartyImage
from components.node import Replicas, Service, Sizing
from stack.model.image_lock import ImageLock, load_lock, mirrored
from stack.model.profile import Profile, ServerSize
from stack.model.settings import ANY_SERVER, ROOT, Choices, Settings, load_settings

__all__ = ["Environment", "environment"]

MESH_PROXY = Sizing.of(cpu=("50m", "500m"), memory=("64Mi", "256Mi"))
"""Requests: half of Istio's default (100m, 128Mi), because each proxy knows only the callees of its pod."""


class Environment(ClosedModel):
    """Settings, and the profile that they name."""

    settings: Settings
    profile: Profile
    images: ImageLock

    @property
    def name(self) -> str:
        """The environment's name, such as `dev` or `prod-eu`."""
        return self.settings.environment

    def replicas(self, service: Service) -> Replicas:
        """The range of a service's replicas in this environment."""
        return self.settings.replicas.get(service.name) or self.profile.replicas(service.replicas)

    def sizing(self, service: Service) -> Sizing:
        """The resources of one replica of a service."""
        return self.profile.sizing(service.sizing)

    def server(self, name: str) -> ServerSize:
        """The size of one of the platform's own servers."""
        size, classes = self.profile.servers[name], self.settings.storage_classes
        return size.model_copy(update={"storage_class": classes.get(name, classes.get(ANY_SERVER))})

    def deploys(self, server: str) -> bool:
        """True if the profile has a server of that name."""
        return server in self.profile.servers

    @property
    def mesh_proxy(self) -> Sizing | None:
        """Size of the mesh's proxy in each pod; `None` where there is no mesh."""
        return MESH_PROXY if self.settings.mesh else None

    def image(self, service: Service) -> Image:
        """The image of a service, with its digest if the lock has it."""
        own = f"{self.settings.image_repository}/{service.name}:{self.settings.image_tag}"
        return self._pinned(self.settings.reference_image or own)

    def third_party_image(self, image: ThirdPartyImage) -> Image:
        """A third-party image, from its registry or the registry's mirror, with its digest if the lock has it."""
        return self._pinned(mirrored(image.reference, self.settings.registry_mirrors))

    def _pinned(self, reference: str) -> Image:
        return Image(reference=self.images.pinned(reference), pull_secret=self.settings.image_pull_secret)


def environment(settings: Settings, choices: Choices, images: ImageLock | None = None) -> Environment:
    """The environment that `settings` configure; `images` is the committed lock unless another is given."""
    return Environment(
        settings=settings, profile=choices.profiles[settings.profile], images=load_lock() if images is None else images
    )


def load_environment(name: str, choices: Choices, root: Path = ROOT, images: ImageLock | None = None) -> Environment:
    """The environment of a file; raises `InvalidInputError` with every fault of its settings."""
    return environment(load_settings(name, choices, root), choices, images)
