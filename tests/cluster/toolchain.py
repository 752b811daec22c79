"""Builds programs from Go modules into the user's cache folder, and copies files of modules there.

Every module in `tools/` pins third-party programs in `go.mod` and `go.sum`; the modules in `tests/go` are our own.
If the files of a module have not changed, its programs are not built again. Then Go is not needed.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

MODULES = Path(__file__).parent / "tools"
KWOK_MODULE = "sigs.k8s.io/kwok"
# The stages of kwok that run here: Nodes and their Pods become Ready, Pods of Jobs end, deleted Pods disappear.
KWOK_STAGES = ("node/fast/node-initialize", "pod/fast/pod-ready", "pod/fast/pod-complete", "pod/fast/pod-delete")

GO_MISSING = 77
"""Exit code for a missing Go. Automake's tests use 77 for "skipped"."""


class ToolchainError(RuntimeError):
    """A program or file is not in the cache and cannot be made here."""


class GoMissingError(ToolchainError):
    """A program or file must be made, and `go` is not on PATH."""


def tools_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "voiceassistant-cluster-tools"


@dataclass(frozen=True)
class Module:
    """A Go module and the programs it builds.

    Attributes:
        name: its folder in `place`.
        programs: the name of each program, and the Go package of its `main`.
        sources: the files to write beside the programs: name → Go module → patterns of paths in the module. The text
            of a file is the joined text of all files that match.
        place: the folder that contains the module's folder.
    """

    name: str
    programs: dict[str, str] = field(default_factory=dict)
    sources: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)
    place: Path = MODULES

    @property
    def folder(self) -> Path:
        return self.place / self.name

    @property
    def link_flags(self) -> str:
        """Flags that strip symbols. Kubernetes' and Pulumi's programs also get their version, as in a release build."""
        pins, stamps = (self.folder / "go.mod").read_text(), {}
        if release := re.search(r"k8s\.io/kubernetes (v(\d+)\.(\d+)\.\d+)", pins):
            names = ("gitVersion", "gitMajor", "gitMinor")
            values = zip(names, release.groups(), strict=True)
            stamps = {f"k8s.io/component-base/version.{name}": value for name, value in values}
        elif release := re.search(r"github\.com/pulumi/pulumi/sdk/v3 (v\S+)", pins):
            stamps = {"github.com/pulumi/pulumi/sdk/v3/go/common/version.Version": release[1]}
        return " ".join(["-s -w", *(f"-X {name}={value}" for name, value in stamps.items())])

    @property
    def cache(self) -> Path:
        """The directory of the programs. Its name contains a hash of the files in the module's folder."""
        pinned = b"".join(file.read_bytes() for file in sorted(self.folder.glob("*.*")))
        return tools_folder() / f"{self.name}-{hashlib.sha256(pinned).hexdigest()[:16]}"


CONTROL_PLANE = Module(
    name="control-plane",
    programs={
        "etcd": "go.etcd.io/etcd/server/v3",
        "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
        "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
        "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
        "kwok": f"{KWOK_MODULE}/cmd/kwok",
    },
    sources={"stages.yaml": {KWOK_MODULE: tuple(f"kustomize/stage/{stage}.yaml" for stage in KWOK_STAGES)}},
)
KUBE_SCORE = Module(name="kube-score", programs={"kube-score": "github.com/zegl/kube-score/cmd/kube-score"})
KUBECONFORM = Module(name="kubeconform", programs={"kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform"})
# The image runs Consul 2. Go cannot download Consul 2, because the path of its module lacks the suffix /v2. Consul 1.22
# is the newest release that Go can download (BUSL-1.1, as the image). Consul's go.mod replaces the module `api` by a
# folder. Go ignores this replacement here, so our go.mod pins the matching release of `api`.
CONSUL = Module(name="consul", programs={"consul": "github.com/hashicorp/consul"})
SERVICE_CONFIG = Module(name="go", programs={"serviceconfig": "."}, place=MODULES.parent.parent)
CONTRACT = Module(name="contract", programs={"contract": "."}, place=MODULES.parent.parent / "go")
# The CustomResourceDefinitions that operators install. The API server validates custom resources with them.
OPERATORS = Module(
    name="operators",
    sources={
        "definitions.yaml": {
            "github.com/cloudnative-pg/cloudnative-pg": ("config/crd/bases/*.yaml",),
            "github.com/cloudnative-pg/plugin-barman-cloud": ("config/crd/bases/*.yaml",),
            "istio.io/api": ("kubernetes/customresourcedefinitions.gen.yaml",),
        }
    },
)
PROMETHEUS = Module(
    name="prometheus",
    programs={
        "promtool": "github.com/prometheus/prometheus/cmd/promtool",
        "prometheus": "github.com/prometheus/prometheus/cmd/prometheus",
    },
)
AMTOOL = Module(name="amtool", programs={"amtool": "github.com/prometheus/alertmanager/cmd/amtool"})
BLACKBOX_EXPORTER = Module(
    name="blackbox-exporter", programs={"blackbox_exporter": "github.com/prometheus/blackbox_exporter"}
)
COLLECTOR = Module(name="collector", programs={"collector": "."})
PULUMI = Module(name="pulumi", programs={"pulumi": "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"})
PULUMI_KUBERNETES = Module(
    name="pulumi-kubernetes",
    programs={"pulumi-resource-kubernetes": "."},
    sources={
        name: {"github.com/pulumi/pulumi-kubernetes/provider/v4": (f"cmd/pulumi-resource-kubernetes/{name}",)}
        for name in ("schema.json", "terraform-mapping.json")
    },
)
EVERY_MODULE = (
    CONTROL_PLANE,
    OPERATORS,
    KUBE_SCORE,
    KUBECONFORM,
    PROMETHEUS,
    AMTOOL,
    COLLECTOR,
    CONSUL,
    BLACKBOX_EXPORTER,
    SERVICE_CONFIG,
    CONTRACT,
    PULUMI,
    PULUMI_KUBERNETES,
)


def ensure_built(module: Module) -> Path:
    """Builds the missing programs and files of a module, and returns their folder.

    Raises:
        GoMissingError: a program or file is missing, and `go` is not on PATH.
        ToolchainError: Go failed, or a module lacks a file of `sources`. The message has Go's error or names the file.
    """
    module.cache.mkdir(parents=True, exist_ok=True)
    for position, (program, package) in enumerate(module.programs.items(), start=1):
        target = module.cache / program
        if not target.exists():
            with _progress(f"{program} ({position} of {len(module.programs)} in {module.name})"):
                _build(module, package, target)
    for name, sources in module.sources.items():
        if not (module.cache / name).exists():
            _keep(module, name, sources)
    return module.cache


def _build(module: Module, package: str, target: Path) -> None:
    partial = target.with_name(f"{target.name}.{os.getpid()}")
    _go(module, "build", "-trimpath", "-mod=readonly", f"-ldflags={module.link_flags}", "-o", str(partial), package)
    partial.replace(target)


def _keep(module: Module, name: str, sources: Mapping[str, Iterable[str]]) -> None:
    texts = []
    for path, patterns in sources.items():
        folder = Path(json.loads(_go(module, "mod", "download", "-json", path))["Dir"])
        for pattern in patterns:
            files = sorted(folder.glob(pattern))
            if not files:
                message = f"{path} has no file {pattern}"
                raise ToolchainError(message)
            texts += [file.read_text() for file in files]
    target = module.cache / name
    partial = target.with_name(f"{name}.{os.getpid()}")
    partial.write_text("---\n".join(texts))
    partial.replace(target)


def _go(module: Module, *arguments: str) -> str:
    go = shutil.which("go")
    if go is None:
        message = f"go is not on PATH, and {module.cache} lacks a program or file of {module.name}: install Go"
        raise GoMissingError(message)
    environment = {**os.environ, "CGO_ENABLED": "0"}
    done = subprocess.run(
        [go, *arguments], cwd=module.folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        message = f"go {arguments[0]} in {module.folder} failed:\n{done.stderr.strip()}"
        raise ToolchainError(message)
    return done.stdout


@contextmanager
def _progress(what: str) -> Iterator[None]:
    print(f"building {what} ...", file=sys.stderr, flush=True)
    began = time.monotonic()
    yield
    print(f"built {what} in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def main(names: Sequence[str]) -> int:
    """Builds what the named modules lack, and prints the folder of each module. Without names: all modules."""
    by_name = {module.name: module for module in EVERY_MODULE}
    try:
        for name in names or by_name:
            print(ensure_built(by_name[name]))
    except ToolchainError as error:
        print(error, file=sys.stderr)
        return GO_MISSING if isinstance(error, GoMissingError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
