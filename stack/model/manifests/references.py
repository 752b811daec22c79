"""Finds the addresses of Services in a container's variables and arguments. They show which Services a workload calls.

A value counts as an address only if its form or the variable's name identifies it as an address. For example, the value
`orders` may be a host or a topic.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from components.declaration import Location
from stack.model.manifests.resources import Container

__all__ = ["environment"]

_HOST = r"[a-z]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_URL = re.compile(rf"[a-z][a-z0-9+.-]*://([^/@\s]*@)?(?P<host>{_HOST})(:(?P<port>\d{{1,5}}))?(?![-\w.:$])")
_HOST_AND_PORT = re.compile(rf"(?P<host>{_HOST}):(?P<port>\d{{1,5}})")
_BARE_HOST = re.compile(_HOST)
_NAMES_A_HOST = re.compile(r".*(HOST|HOSTNAME|ADDR|ADDRESS|SERVER|ENDPOINT|URL|URI)", re.IGNORECASE)
_NAMES_AN_IMAGE = re.compile(r".*(IMAGE|TAG|VERSION)", re.IGNORECASE)
"""Names of variables and flags that hold an image or a version. In such a variable `redis:7` is no address."""
_EXPANSION = re.compile(r"\$(?:\$|\(([A-Za-z_][A-Za-z0-9_]*)\))")
"""A reference to a variable, or `$$`, which stands for `$`."""
LOOPBACK = "localhost"


@dataclass(frozen=True, slots=True)
class Address:
    """A host in a variable or an argument, and its port. The port is `None` if only the host is given."""

    host: str
    port: int | None
    where: Location
    """The line of the variable or argument."""
    named_by: str
    """Name of the variable, or `command` or `args`."""


def environment(container: Container, of_config_maps: Mapping[str, str]) -> dict[str, str]:
    """Variables from ConfigMaps and from the manifest. As in kubelet, `$(NAME)` refers only to an earlier variable."""
    values = dict(of_config_maps)
    for variable in container.env:
        if variable.value_from is None:
            values[variable.name] = expanded(variable.value, values)
    return values


def expanded(text: str, values: Mapping[str, str]) -> str:
    """The text with values in place of references to known variables. Other references stay unchanged."""
    return _EXPANSION.sub(lambda match: "$" if match[1] is None else values.get(match[1], match[0]), text)


def hosts_of_variable(name: str, value: str, values: Mapping[str, str]) -> Iterator[tuple[str, int | None]]:
    """The hosts in a variable, with their ports. The port of a bare host in `…_HOST` is in the variable `…_PORT`."""
    if _NAMES_AN_IMAGE.fullmatch(name):
        return
    found = list(hosts_of(value))
    yield from found
    if not found and value != LOOPBACK and _BARE_HOST.fullmatch(value) and _NAMES_A_HOST.fullmatch(name):
        beside = values.get(re.sub(r"(HOST|HOSTNAME|ADDR|ADDRESS)$", "PORT", name), "")
        yield value, int(beside) if beside.isdecimal() else None


def hosts_of_argument(text: str, values: Mapping[str, str]) -> Iterator[tuple[str, int | None]]:
    """Hosts with their ports in an argument, such as `--store=store:6379`."""
    flag, _, value = text.rpartition("=")
    yield from () if _NAMES_AN_IMAGE.fullmatch(flag) else hosts_of(expanded(value, values))


def hosts_of(text: str) -> Iterator[tuple[str, int | None]]:
    """The hosts in the URLs of a text, with their ports. If the text has no URL: the hosts in a list of `host:port`."""
    urls = [(match["host"], _port(match["port"])) for match in _URL.finditer(text)]
    parts = [_HOST_AND_PORT.fullmatch(part) for part in re.split(r"[,;]", text)]
    listed = [(part["host"], _port(part["port"])) for part in parts if part]
    yield from (found for found in urls or listed if found[0] != LOOPBACK)


def _port(text: str | None) -> int | None:
    return int(text) if text else None
