import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stack.model.environments import load_environment
from stack.model.image_lock import ImageLock, images
from stack.model.platform import Platform
from stack.model.settings import PROJECT, ROOT, SECRETS
from stack.model.tenant import Tenant
from stack.voiceassistant import TENANT
from tests.cluster.engine import toy

PROGRAM = ("stack", "components", "runtime")
"""The packages of VoiceAssistant's program, and `runtime`, whose SQL files the program renders."""
LOCK = "images.lock.yaml"
TOY_PROGRAM = """\
from stack.deploy.main import deploy
from toy import TENANT

deploy(TENANT)
"""
TOY_CONFIG: dict[str, Any] = {
    f"{PROJECT}:node_pool": {"nodes": 3, "zones": 3, "cpu": "8", "memory": "16Gi"},
    f"{PROJECT}:api_server": {"cidr": "10.0.0.1/32"},
    f"{PROJECT}:nodes": "10.0.0.0/24",
}


@dataclass(frozen=True)
class Subject:
    """A tenant. `lay_out` fills an empty folder with the Pulumi project of the tenant."""

    tenant: Tenant
    lay_out: Callable[[Path], None]

    def platform(self, environment: str, folder: Path) -> Platform:
        return Platform(self.tenant, load_environment(environment, self.tenant, folder))


def pin_images(platform: Platform, folder: Path) -> None:
    references = {image for component in platform.components for image in images(component.resources())}
    ImageLock(digests=dict.fromkeys(references, f"sha256:{64 * '0'}")).write(folder / LOCK)


def _lay_out_voiceassistant(folder: Path) -> None:
    """Copies this project without its encrypted secrets, because the stacks of a test cannot decrypt them."""
    for name in PROGRAM:
        shutil.copytree(ROOT / name, folder / name)
    for file in ("Pulumi.yaml", LOCK):
        shutil.copy2(ROOT / file, folder)
    for path in ROOT.glob("Pulumi.*.yaml"):
        config = yaml.safe_load(path.read_text())["config"]
        config.pop(SECRETS, None)
        (folder / path.name).write_text(yaml.safe_dump({"config": config}))


def _lay_out_toy(folder: Path) -> None:
    project = {**yaml.safe_load((ROOT / "Pulumi.yaml").read_text()), "main": "program/"}
    (folder / "Pulumi.yaml").write_text(yaml.safe_dump(project))
    for name in toy.TENANT.profiles:
        config = {f"{PROJECT}:profile": name, **TOY_CONFIG}
        (folder / f"Pulumi.{name}.yaml").write_text(yaml.safe_dump({"config": config}))
    (folder / "program").mkdir()
    (folder / "program" / "__main__.py").write_text(TOY_PROGRAM)
    shutil.copy2(Path(toy.__file__), folder)


VOICEASSISTANT = Subject(TENANT, _lay_out_voiceassistant)
TOY = Subject(toy.TENANT, _lay_out_toy)
