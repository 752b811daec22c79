from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voice_policies import InvalidInputError

from stack.model.manifests.read import read_manifests
from stack.model.manifests.system import load_system
from tests.stack.model.manifests.small_system import resource, service, system, with_spec, workload, write

SHOP = """\
apiVersion: v1
kind: Service
metadata: {name: shop}
spec: {selector: {app: shop}, ports: [{port: 80}]}
"""


def refusal(directory: Path, *contents: str) -> str:
    with pytest.raises(InvalidInputError) as refused:
        load_system(write(directory, *contents))
    return str(refused.value).replace(str(directory), "DIR")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "DIR/00.yaml:2: is not YAML; "),
        ("- a\n- b", "DIR/00.yaml:1: is no Kubernetes resource; expected a mapping with apiVersion, kind and "),
        ("a: 1", "is no Kubernetes resource; expected apiVersion as text and kind as text and metadata.name as text"),
        ("apiVersion: v1\nkind: Service\nmetadata: []", "expected metadata.name as text"),
        ("{{- if .Values.on }}\na: 1\n{{- end }}", "DIR/00.yaml:1: is a Helm template; render the chart first: "),
        ("apiVersion: v1\nkind: Service\nmetadata: {name: '{{ .Values.name }}'}", "is a Helm template"),
        ("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization", "is a Kustomization; build it first"),
        ("a: &one 1\nb: *one", "has the anchor or alias 'one'"),
        ("a: 1\na: 2", "DIR/00.yaml:2: key 'a' appears twice"),
        ("a: !!int x", "DIR/00.yaml:1: has the tag !!int, but is 'x'; expected a whole number of at most 100 digits"),
        ("a: 1\nb: !!int ''", "DIR/00.yaml:2: has the tag !!int, but is ''; expected a whole number"),
        (f"a: !!int {'9' * 5000}", "has the tag !!int, but is '999999999999...9999999999999'; expected a whole number"),
        ("a: !!int [1]", "has the tag !!int, but is a list; expected a whole number"),
        ("a: !!float abc", "DIR/00.yaml:1: has the tag !!float, but is 'abc'; expected a number such as 1.5"),
        ("a: !!bool maybe", "DIR/00.yaml:1: has the tag !!bool, but is 'maybe'; expected true or false"),
        ("a: !!null b", "DIR/00.yaml:1: has the tag !!null, but is 'b'; expected null"),
        ("a: !!str [1]", "DIR/00.yaml:1: has the tag !!str, but is a list; expected text"),
        ("a: !!seq {b: 1}", "DIR/00.yaml:1: has the tag !!seq, but is a mapping; expected a list"),
        ("a: !!map [1]", "DIR/00.yaml:1: has the tag !!map, but is a list; expected a mapping"),
        ("a: !!map b", "DIR/00.yaml:1: has the tag !!map, but is 'b'; expected a mapping"),
        ("[" * 200, "is nested deeper than 100 levels"),
        (f"{SHOP}---\n{SHOP}", "DIR/00.yaml:6: Service shop: is declared twice; it is also in DIR/00.yaml:1"),
        ("# nothing", "DIR: 1 fault\n  has no manifest; expected resources in files that end in .json, .yaml, .yml"),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}", "DIR: 1 fault\n  has no Service; "),
        (SHOP.replace("80", "http"), "DIR/00.yaml:4: Service.shop.spec.ports[0].port: is 'http'; expected a"),
        (SHOP.replace("ports: [{port: 80}]", "ports: 80"), "Service.shop.spec.ports: is 80; expected a list"),
        ("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}", "Deployment.a.spec.template.spec: is missing"),
    ],
)
def test_an_invalid_directory_of_manifests_is_one_clear_error(text: str, said: str, tmp_path: Path) -> None:
    assert said in refusal(tmp_path, text)


def test_a_missing_or_empty_directory_is_refused(tmp_path: Path) -> None:
    assert "has no manifest" in refusal(tmp_path)
    with pytest.raises(InvalidInputError, match="does not exist; expected a file or directory of manifests"):
        load_system(tmp_path / "missing")


def test_only_the_named_file_is_read_whatever_its_suffix(tmp_path: Path) -> None:
    folder = write(tmp_path, SHOP, SHOP.replace("shop", "other"))
    renamed = (folder / "00.yaml").rename(folder / "rendered")
    assert [each.name for each in read_manifests(renamed)] == ["shop"]
    assert [each.name for each in read_manifests(folder)] == ["other"]


def test_a_file_and_a_folder_that_cannot_be_read_are_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.yaml").symlink_to("/proc/self/mem")  # a file that even root cannot read
    (tmp_path / "dangling.yaml").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refusing(path: str | Path) -> object:
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert refusal(tmp_path, SHOP).splitlines()[1:] == [
        "  DIR/closed: cannot be read; Permission denied",
        "  DIR/broken.yaml: cannot be read; Input/output error",
        "  DIR/dangling.yaml: cannot be read; No such file or directory",
        "  DIR/pipe.yaml: is a pipe or a device; expected a file of at most 104857600 bytes",
    ]


def test_a_custom_resource_with_the_kind_of_a_workload_is_no_workload(tmp_path: Path) -> None:
    job = "apiVersion: batch.volcano.sh/v1alpha1\nkind: Job\nmetadata: {name: train}\nspec: {tasks: []}"
    assert not system(tmp_path, SHOP, job).workloads


def test_faulty_fields_are_reported_only_if_every_document_can_be_read(tmp_path: Path) -> None:
    text = refusal(tmp_path, "a: [", "- b", SHOP.replace("80", "http"))
    assert text.startswith("DIR: 2 faults\n")
    text = refusal(tmp_path, SHOP.replace("80", "a"), SHOP.replace("shop", "b").replace("80", "b"), "# none")
    assert text.startswith("DIR: 2 faults\n")


def test_an_item_of_a_list_and_a_later_document_have_their_lines_in_the_file(tmp_path: Path) -> None:
    listed = f"apiVersion: v1\nkind: List\nitems:\n- {SHOP.replace(chr(10), chr(10) + '  ').rstrip()}\n"
    found = system(tmp_path, f"{listed}---\n{SHOP.replace('shop', 'store')}")
    assert [(each.name, each.manifest.at().line) for each in found.services] == [("shop", 4), ("store", 9)]


@pytest.mark.parametrize("items", ["", " null", " []"])
def test_a_list_may_be_empty(items: str, tmp_path: Path) -> None:
    found = system(tmp_path, f"apiVersion: v1\nkind: List\nitems:{items}\n---\n{SHOP}")
    assert [each.name for each in found.services] == ["shop"]


def test_manifests_may_also_be_json(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(
        '{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": [{"port": 1}]}}'
    )
    assert [each.name for each in load_system(tmp_path).services] == ["a"]


def test_empty_fields_count_as_left_out(tmp_path: Path) -> None:
    empty = workload("a", env=None, ports=None, resources=None, args=None)
    found = system(tmp_path, empty, service("a"), resource("ConfigMap", "c", data=None))
    assert found.workloads[0].containers[0][2].ports == ()


def test_null_is_read_as_left_out(tmp_path: Path) -> None:
    scaling = {"scaleTargetRef": {"kind": "Deployment", "name": "a"}, "minReplicas": None, "maxReplicas": 2}
    content = with_spec(workload("a", image=None, livenessProbe={"httpGet": None}), replicas=None)
    found = system(tmp_path, content, service("a"), resource("HorizontalPodAutoscaler", "a", scaling))
    assert found.count(found.workloads[0]) == 1


def test_one_name_may_be_used_in_two_namespaces(tmp_path: Path) -> None:
    other = service("a")
    other["metadata"]["namespace"] = "other"
    assert [each.title for each in system(tmp_path, service("a"), other).services] == ["Service a", "Service other/a"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)


@given(kind=st.sampled_from(["Service", "Deployment", "NetworkPolicy", "CronJob", "VirtualService"]), spec=json_values)
def test_any_spec_is_read_or_refused(kind: str, spec: object, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("manifests")
    content = {"apiVersion": "v1", "kind": kind, "metadata": {"name": "a"}, "spec": spec}
    try:
        write(directory, content, service("shop"))
        assert load_system(directory).references == ()
    except InvalidInputError as error:
        assert error.faults
