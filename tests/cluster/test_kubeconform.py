"""The schemas come from the API server, including the schemas of the operators' resources. Nothing is downloaded."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.kubernetes.__main__ import reachable
from tests.cluster import toolchain
from tests.cluster.build_or_skip import build_or_skip
from tests.cluster.conftest import StartCluster
from tests.cluster.manifests import read
from tests.cluster.misspelling import keys_of, misspelt
from tests.platforms import ENVIRONMENTS

pytestmark = pytest.mark.cluster

Schema = dict[str, Any]
ANY_TEXT_OR_NUMBER = {"type": ["string", "number"]}
"""In the published schema a field of the format `int-or-string` has the type `string`. The API also accepts numbers."""
NAMED = "x-kubernetes-group-version-kind"


@pytest.fixture(scope="session")
def kubeconform(request: pytest.FixtureRequest) -> Path:
    return build_or_skip(request, toolchain.KUBECONFORM) / "kubeconform"


@pytest.fixture(scope="module")
def schemas(start_cluster: StartCluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with start_cluster() as cluster:
        published = json.loads(cluster.kubectl.run("get", "--raw", "/openapi/v2"))["definitions"]
    folder = tmp_path_factory.mktemp("schemas")
    closed = {name: strict(schema) for name, schema in published.items()}
    for name, schema in published.items():
        for kind in schema.get(NAMED, ()):
            group = f"{kind['group'].partition('.')[0]}-" if kind["group"] else ""
            file = folder / f"{kind['kind'].lower()}-{group}{kind['version']}.json"
            own = {"$ref": f"#/definitions/{name}", "definitions": reachable(closed, name)}
            file.write_text(json.dumps(own))
    return folder


def strict(schema: Schema) -> Schema:
    """A copy of the schema that refuses unknown fields, except where the API server preserves them."""
    if schema.get("format") == "int-or-string":
        return ANY_TEXT_OR_NUMBER
    found = {key: value for key, value in schema.items() if not key.startswith("x-")}
    if "properties" in schema:
        found["properties"] = {key: strict(value) for key, value in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            found.setdefault("additionalProperties", False)
    for key in ("items", "additionalProperties"):
        if isinstance(found.get(key), dict):
            found[key] = strict(found[key])
    return found


def faults(kubeconform: Path, schemas: Path, *arguments: str | Path, text: str = "") -> tuple[int, list[str]]:
    """The number of valid resources, and the message about each invalid resource."""
    location = f"{schemas}/{{{{ .ResourceKind }}}}{{{{ .KindSuffix }}}}.json"
    command = [kubeconform, "-strict", "-summary", "-output=json", f"-schema-location={location}", *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    said = json.loads(done.stdout)
    return said["summary"]["valid"], [f"{each['kind']} {each['name']}: {each['msg']}" for each in said["resources"]]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_kubeconform_accepts_every_manifest(
    environment: str,
    kubeconform: Path,
    schemas: Path,
    rendered: Callable[[str], Path],
    report: Callable[[str], None],
) -> None:
    tree = rendered(environment)
    valid, refused = faults(kubeconform, schemas, tree)
    assert refused == []
    assert valid == len(read(tree))
    report(f"kubeconform: {valid} manifests of {environment} are valid")


def test_kubeconform_refuses_a_misspelt_field(
    kubeconform: Path, schemas: Path, rendered: Callable[[str], Path]
) -> None:
    (disruption,) = (
        each.content
        for each in read(rendered("prod"))
        if each.content["kind"] == "PodDisruptionBudget" and each.content["metadata"]["name"] == "gateway"
    )
    assert faults(kubeconform, schemas, text=json.dumps(disruption)) == (1, [])
    spec = next(path for path in keys_of(disruption) if path[0] == "spec" and len(path) == 2)
    _, (refused,) = faults(kubeconform, schemas, text=json.dumps(misspelt(disruption, spec)))
    assert "additional" in refused.lower()
