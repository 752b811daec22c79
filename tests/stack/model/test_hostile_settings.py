from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voice_policies import InvalidInputError

from stack.model.settings import Settings, load_settings
from stack.voiceassistant import TENANT

DEV = """\
config:
  voiceassistant:profile: dev
  voiceassistant:api_server: {cidr: 172.16.0.0/12}
  voiceassistant:nodes: 172.16.0.0/12
"""
DEEP = "[" * 100_000 + "]" * 100_000
POOL = "  voiceassistant:node_pool: {nodes: %s, zones: %s, cpu: %s, memory: %s}\n"
GOOD = DEV + POOL % ("2", "1", '"4"', "14Gi")


def pool(nodes: str = "2", zones: str = "1", cpu: str = '"4"', memory: str = "14Gi") -> str:
    return DEV + POOL % (nodes, zones, cpu, memory)


def key(line: str) -> str:
    return f"{GOOD}  {line}\n"


def read(tmp_path: Path, content: str | bytes) -> Settings:
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "Pulumi.dev.yaml").write_bytes(data)
    return load_settings("dev", TENANT, tmp_path)


def answer(tmp_path: Path, content: str | bytes) -> str:
    with pytest.raises(InvalidInputError) as caught:
        read(tmp_path, content)
    return str(caught.value)


ON = "config.voiceassistant:"
HOSTILE: dict[str, tuple[str | bytes, str]] = {
    # Numbers
    "a leading zero": (
        pool(nodes="010"),
        "Pulumi.dev.yaml:5: 010 is octal for some YAML parsers, decimal for others; leave",
    ),
    "a sexagesimal number": (pool(nodes="1:30"), f"{ON}node_pool.nodes: is '1:30'; expected a whole number"),
    "an underscore": (pool(nodes="1_0"), f"{ON}node_pool.nodes: is '1_0'; expected a whole number"),
    "a fraction": (pool(nodes="2.5"), f"{ON}node_pool.nodes: is 2.5; expected a whole number"),
    "a boolean for a number": (pool(nodes="true"), f"{ON}node_pool.nodes: is true; expected a whole number"),
    "null for a number": (pool(nodes="~"), f"{ON}node_pool.nodes: is null; expected a whole number"),
    "zero nodes": (pool(nodes="0"), f"{ON}node_pool.nodes: is 0; expected greater than or equal to 1"),
    "a negative number": (pool(nodes="-1"), f"{ON}node_pool.nodes: is -1; expected greater than or equal to 1"),
    "twenty digits": (pool(nodes="9" * 20), "; expected less than or equal to 1000"),
    "five thousand digits": (pool(nodes="9" * 5000), "…; expected a whole number"),
    "not a number": (pool(nodes=".nan"), f"{ON}node_pool.nodes: is nan; expected a whole number"),
    "infinity": (key("voiceassistant:trace_sample_ratio: .inf"), f"{ON}trace_sample_ratio: is inf; expected a ratio"),
    "a ratio above 100 %": (
        key("voiceassistant:trace_sample_ratio: 200%"),
        f"{ON}trace_sample_ratio: is '200%'; expected a",
    ),
    "a negative ratio": (
        key("voiceassistant:trace_sample_ratio: -1%"),
        f"{ON}trace_sample_ratio: is '-1%'; expected a",
    ),
    # Sizes
    "more zones than nodes": (
        pool(nodes="2", zones="3"),
        f"{ON}node_pool: is refused; zones 3 is above nodes 2: expected a",
    ),
    "no CPU": (pool(cpu='"0"'), f"{ON}node_pool: is refused; cpu is '0': expected more than 0"),
    "no memory": (pool(memory="0Gi"), f"{ON}node_pool: is refused; memory is '0': expected more than 0"),
    "memory without a unit": (
        pool(memory="32"),
        f"{ON}node_pool.memory: is 32; expected a size in bytes",
    ),
    "a decimal unit": (pool(memory="32GB"), f"{ON}node_pool.memory: is '32GB'; expected a size in bytes"),
    "a huge CPU quantity": (pool(cpu="9" * 90), f"{ON}node_pool.cpu: is "),
    "a word for a quantity": (pool(cpu="many"), f"{ON}node_pool.cpu: is 'many'; expected a CPU quantity"),
    # Words
    "yes": (key("voiceassistant:mesh: yes"), f"{ON}mesh: is 'yes'; expected true or false"),
    "on": (key("voiceassistant:mesh: on"), f"{ON}mesh: is 'on'; expected true or false"),
    "one for true": (key("voiceassistant:mesh: 1"), f"{ON}mesh: is 1; expected true or false"),
    "false for text": (
        key("voiceassistant:image_tag: false"),
        f"{ON}image_tag: is false; expected text: put it in quotes",
    ),
    "a version as a number": (key("voiceassistant:image_tag: 1.10"), f"{ON}image_tag: is 1.1; expected text: put it"),
    "an unknown word": (key("voiceassistant:log_level: loud"), f"{ON}log_level: is 'loud'; expected 'debug', 'info', "),
    "an unknown profile": (GOOD.replace(": dev", ": dve"), f"{ON}profile: is 'dve'; did you mean dev? expected"),
    "a control character": (
        key('voiceassistant:image_tag: "\\a"'),
        f"{ON}image_tag: is '\\x07'; expected text such as 1.0.0",
    ),
    "very long text": (key(f"voiceassistant:image_tag: {'x' * 100_000}"), "xxx…; expected text such as 1.0.0"),
    "a smile": (key('voiceassistant:image_tag: "\\U0001F600"'), f"{ON}image_tag: is '😀'; expected text such as 1.0.0"),
    "text from right to left": (
        key('voiceassistant:image_tag: "a\\u202ec"'),
        f"{ON}image_tag: is 'a\\u202ec'; ",
    ),
    "two lines for a host": (
        key('voiceassistant:gateway_host: "a.b\\nc"'),
        f"{ON}gateway_host: is 'a.b\\nc'; ",
    ),
    "a day that does not exist": (
        key("voiceassistant:accepted_findings: [{rule: D02, path: a, reason: none, expires: 2026-02-30}]"),
        f"{ON}accepted_findings[0].expires: is '2026-02-30'; expected a valid date",
    ),
    # Networks
    "a prefix longer than 32 bits": (
        key("voiceassistant:gateway_network: 10.0.0.0/33"),
        f"{ON}gateway_network: is '10.0.0.0/",
    ),
    "a network in place of an address": (
        key("voiceassistant:cluster_dns: ['10.96.0.0/12']"),
        f"{ON}cluster_dns[0]: is '10.96.0.0/12'; expected a single address, such as 10.96.0.10/32 or fd00::a/128",
    ),
    "an address with a zone": (
        key("voiceassistant:cluster_dns: ['fe80::1%eth0/64']"),
        f"{ON}cluster_dns[0]: is 'fe80::1%eth0/64'; expected a block in its canonical form",
    ),
    "a block with host bits": (
        key("voiceassistant:notifications: {network: 10.0.0.1/8}"),
        "notifications.network: is",
    ),
    "no block": (GOOD.replace("172.16.0.0/12\n", "here\n"), f"{ON}nodes: is 'here'; expected "),
    # Keys
    "a capitalised key": (key("voiceassistant:Mesh: true"), "Mesh: is true; not a known key: did you mean mesh?"),
    "a key with a blank": (key('"voiceassistant:mesh ": true'), "mesh : is true; not a known key: did you mean mesh?"),
    "a namespace alone": (
        key("'voiceassistant:': true"),
        "config.voiceassistant: is true; not a known key: expe",
    ),
    "two namespaces": (
        key("voiceassistant:voiceassistant:mesh: true"),
        "is in namespace 'voiceassistant:voiceassistant'; did you mean voiceassistant?",
    ),
    "a colon for a key": (key("':': true"), "config.:: is in namespace ''; expected one of kubernetes, "),
    "nothing for a key": (key("~: true"), "config: is not a mapping; expected keys such as voiceassistant:mesh"),
    "a day for a key": (
        key("2026-11-30: true"),
        "config.2026-11-30: has no namespace; write voiceassistant:2026",
    ),
    "a misspelt key": (
        key("voiceassistant:log_levle: info"),
        "log_levle: is 'info'; not a known key: did you mean log_level?",
    ),
    "a misspelt inner key": (
        pool().replace("zones", "zone"),
        "node_pool.zone: is 1; not a known key: did you mean zones?",
    ),
    "a misspelt namespace": (
        key("voiceassitant:mesh: true"),
        "is in namespace 'voiceassitant'; did you mean voiceassistant?",
    ),
    "another namespace": (
        key("aws:region: x"),
        "config.aws:region: is in namespace 'aws'; expected one of kubernetes, ",
    ),
    "no namespace": (key("mesh: true"), "config.mesh: has no namespace; write voiceassistant:mesh"),
    "a misspelt key of the provider": (
        key("kubernetes:contxt: x"),
        "kubernetes:contxt: is not read; did you mean context?",
    ),
    "a misspelt config": (
        GOOD.replace("config:", "confg:"),
        "confg: is not a known key; did you mean config? expected",
    ),
    "a key beside config": (f"{GOOD}settings: {{}}\n", "settings: is not a known key; expected one of config, "),
    "a key that appears twice": (
        key("voiceassistant:nodes: 10.0.0.0/8"),
        "Pulumi.dev.yaml:6: key 'voiceassistant:nodes' appears twice; keep one of them",
    ),
    "an inner key that appears twice": (
        pool().replace("zones: 1", "nodes: 1"),
        "Pulumi.dev.yaml:5: key 'nodes' appears twice; keep one of them",
    ),
    "two configs": (f"{GOOD}config: {{}}\n", "Pulumi.dev.yaml:6: key 'config' appears twice; keep one of them"),
    "a number for a key": ("config: {1: 2}\n", "config: is not a mapping; expected keys such as voiceassistant:mesh"),
    "a list for a key": ("config: {? [a] : b}\n", "Pulumi.dev.yaml:1: is not YAML; while constructing a mapping found"),
    "a merge": (
        pool().replace("nodes: 2", "<<: {nodes: 2}"),
        "node_pool.<<: is refused; not a known key: expected one of",
    ),
    "five thousand unknown keys": (
        GOOD + "".join(f"  voiceassistant:x{number}: 1\n" for number in range(5000)),
        "\n  and 4950 more",
    ),
    "five thousand misspelt namespaces": (
        GOOD + "".join(f"  voice:x{number}: 1\n" for number in range(5000)),
        "Pulumi.dev.yaml: 5000 faults\n",
    ),
    # Shapes
    "a list for a word": (GOOD.replace(": dev", ": [dev]"), f"{ON}profile: is refused; expected 'dev', 'staging' or"),
    "a number for prices": (key("voiceassistant:prices: 5"), f"{ON}prices: is 5; expected a mapping"),
    "a negative number of replicas": (
        key("voiceassistant:replicas: {agent-engine: {min: -1, max: 1}}"),
        f"{ON}replicas.agent-engine.min: is -1; expected greater than or equal to 1",
    ),
    "twenty digits of replicas": (
        key(f"voiceassistant:replicas: {{agent-engine: {{min: 1, max: {'9' * 20}}}}}"),
        f"{ON}replicas.agent-engine.max: is {'9' * 20}; expected less than or equal to 1000",
    ),
    "an empty file": ("", "config: is not a mapping; expected keys such as voiceassistant:mesh"),
    "a list for a file": ("- a\n", "config: is not a mapping; expected keys such as voiceassistant:mesh"),
    "text for a file": ("hello\n", "config: is not a mapping; expected keys such as voiceassistant:mesh"),
    "a number for config": ("config: 5\n", "config: is not a mapping; expected keys such as voiceassistant:mesh"),
    "a list for a mapping": (key("voiceassistant:replicas: [a]"), f"{ON}replicas: is refused; expected a mapping"),
    "text for a mapping": (key("voiceassistant:backups: daily"), f"{ON}backups: is 'daily'; expected a mapping"),
    "text for a list": (key("voiceassistant:without: a"), f"{ON}without: is 'a'; expected a list"),
    "an unknown service": (
        key("voiceassistant:replicas: {agent-engin: {min: 1, max: 1}}"),
        "replicas.agent-engin: is no service; did you mean agent-engine?",
    ),
    "a minimum above the maximum": (
        key("voiceassistant:replicas: {agent-engine: {min: 3, max: 1}}"),
        "replicas.agent-engine: is refused; min 3 is above max 1",
    ),
    "a secret in plain text": (
        key("voiceassistant:secrets: {redis: {password: hunter2}}"),
        "config.voiceassistant:secrets.redis.password: is not encrypted; set it with `pulumi config set --secret",
    ),
    "an empty config": ("config: {}\n", f"{ON}profile: is missing; field required"),
    # YAML itself
    "a hundred thousand lists": (
        key(f"voiceassistant:replicas: {DEEP}"),
        "Pulumi.dev.yaml:6: is nested deeper than 100 levels; expected at most 100 levels",
    ),
    "an alias of itself": ("config: &a [*a]\n", "Pulumi.dev.yaml:1: has the anchor or alias 'a'; write the value out"),
    "a Python object": (
        "config: !!python/object:os.system {}\n",
        "has the tag !!python/object:os.system; expected plain",
    ),
    "bytes": (
        key("voiceassistant:image_tag: !!binary aGk="),
        "Pulumi.dev.yaml:6: has the tag !!binary; expected plain",
    ),
    "two documents": (f"{GOOD}---\nconfig: {{}}\n", "is not YAML; expected a single document in the stream but found"),
    "a tab": ("config:\n\ta: 1\n", "Pulumi.dev.yaml:2: is not YAML; while scanning for the next token found character"),
    "an open bracket": (
        "config: [\n",
        "Pulumi.dev.yaml:2: is not YAML; while parsing a flow node did not find expected",
    ),
    "a null byte": ("config: \x00\n", "Pulumi.dev.yaml:1: is not YAML; a control character is not allowed"),
    "half a surrogate pair": (
        key('voiceassistant:image_tag: "\\ud800"'),
        "Pulumi.dev.yaml:6: is not YAML; while parsing a quoted",
    ),
    "Latin-1": (
        f"{GOOD}# é\n".encode("latin-1"),
        "Pulumi.dev.yaml:6: the byte at position 203 is not UTF-8; save the file",
    ),
    "UTF-16 without a byte order mark": (
        GOOD.encode("utf-16-le"),
        "Pulumi.dev.yaml:1: is not YAML; a control character is not",
    ),
    "UTF-32": (GOOD.encode("utf-32"), "Pulumi.dev.yaml:1: the byte at position 1 is not UTF-8; save the file"),
    "every byte": (
        bytes(range(256)),
        "Pulumi.dev.yaml:2: the byte at position 129 is not UTF-8; save the file",
    ),
    "a byte order mark alone": (b"\xef\xbb\xbf", "config: is not a mapping; expected keys such as voiceassistant:mesh"),
    "a quote that stays open": (
        key('voiceassistant:image_tag: "1'),
        "Pulumi.dev.yaml:7: is not YAML; while scanning",
    ),
    "UTF-16 without the last byte": (GOOD.encode("utf-16")[:-1], "is not UTF-16; save the file as UTF-8"),
}


@pytest.mark.parametrize(("content", "said"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_gets_one_clear_answer(tmp_path: Path, content: str | bytes, said: str) -> None:
    text = answer(tmp_path, content)
    assert text.startswith("Pulumi.dev.yaml: ")
    assert said in text
    assert len(text) < 30_000
    for python in ("True", "False", "None", "dict", "Traceback", "unhashable type", "b'"):
        assert python not in text


@pytest.mark.parametrize(
    ("content", "field", "value"),
    [
        (pool(nodes="0o10"), "node_pool.nodes", 8),
        (pool(nodes="0x10"), "node_pool.nodes", 16),
        (pool(nodes="+3"), "node_pool.nodes", 3),
        (key("voiceassistant:image_tag: 2026-11-23"), "image_tag", "2026-11-23"),
        (key("voiceassistant:image_tag: no"), "image_tag", "no"),
        (key("voiceassistant:image_tag: 12e"), "image_tag", "12e"),
        (key("voiceassistant:mesh: True"), "mesh", True),
        (key("voiceassistant:trace_bucket: null"), "trace_bucket", None),
        (GOOD.encode("utf-16"), "node_pool.nodes", 2),
        (GOOD.encode("utf-8-sig"), "node_pool.nodes", 2),
        (GOOD.replace("\n", "\r\n"), "node_pool.nodes", 2),
        (f"{GOOD}encryptionsalt: v1:salt\n", "node_pool.nodes", 2),
        (key("pulumi:tags: {}"), "node_pool.nodes", 2),
    ],
    ids=[
        "octal",
        "hexadecimal",
        "plus sign",
        "a date is text",
        "no is text",
        "digits with a letter are text",
        "True with a capital letter",
        "null",
        "UTF-16",
        "UTF-8 with a byte order mark",
        "CRLF",
        "a top-level key of Pulumi",
        "a setting of Pulumi",
    ],
)
def test_unusual_but_permitted_yaml_is_read(tmp_path: Path, content: str | bytes, field: str, value: object) -> None:
    found: Any = read(tmp_path, content)
    for name in field.split("."):
        found = getattr(found, name)
    assert found == value


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (Path.mkdir, "cannot be read; Is a directory"),
        (os.mkfifo, "is a pipe or a device; expected a file"),
        (lambda path: path.symlink_to("/dev/zero"), "is a pipe or a device; expected a file"),
        (sparse, "has 1099511627776 bytes; expected a file of at most"),
        (lambda path: path.symlink_to(path), "cannot be read; Too many levels of symbolic links"),
        (lambda path: path.symlink_to("nowhere"), "cannot be read; No such file or directory"),
    ],
    ids=["directory", "pipe", "device", "file of 1 TiB", "link to itself", "link to a missing file"],
)
def test_a_path_that_is_no_readable_file_of_normal_size_is_refused(
    tmp_path: Path, make: Callable[[Path], None], said: str
) -> None:
    make(tmp_path / "Pulumi.dev.yaml")
    with pytest.raises(InvalidInputError, match=said):
        load_settings("dev", TENANT, tmp_path)


FRAGMENTS = st.sampled_from(
    [*(text for text, _ in HOSTILE.values() if isinstance(text, str) and len(text) < 1000), GOOD]
)


@settings(max_examples=500)
@given(
    text=FRAGMENTS,
    first=st.integers(0, 400),
    last=st.integers(0, 40),
    put=st.text(max_size=5) | st.just(json.dumps({})),
)
def test_a_file_with_a_piece_replaced_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, text: str, first: int, last: int, put: str
) -> None:
    folder = tmp_path_factory.getbasetemp() / "replaced"
    folder.mkdir(exist_ok=True)
    changed = f"{text[:first]}{put}{text[first + last :]}"
    (folder / "Pulumi.dev.yaml").write_text(changed, encoding="utf-8", errors="surrogatepass")
    try:
        load_settings("dev", TENANT, folder)
    except InvalidInputError as error:
        assert error.faults
