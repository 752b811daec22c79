"""The Services that a container's variables and arguments name: who calls whom, as far as manifests tell.

A value counts as an address only where its form or its variable's name says so: `orders` may be a host, and a topic.
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
_EXPANSION = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)")
LOOPBACK = "localhost"


@dataclass(frozen=True, slots=True)
class Address:
    """A host that a container names, with a port where one stands beside it."""

    host: str
    port: int | None
    where: Location
    """The line of the variable or argument."""
    named_by: str
    """The variable, or `args`."""


def environment(container: Container, of_config_maps: Mapping[str, str]) -> dict[str, str]:
    """The literal values of a container's variables, `$(NAME)` expanded as kubelet does: earlier ones alone."""
    values = dict(of_config_maps)
    for variable in container.env:
        if variable.value_from is None:
            values[variable.name] = expanded(variable.value, values)
    return values


def expanded(text: str, values: Mapping[str, str]) -> str:
    """A text with the variables that are known; the others stay as they are."""
    return _EXPANSION.sub(lambda match: values.get(match[1], match[0]), text)


def hosts_of_variable(name: str, value: str, values: Mapping[str, str]) -> Iterator[tuple[str, int | None]]:
    """Hosts with their ports in a variable. A bare host takes the port of the variable beside it, `…_PORT`."""
    found = list(hosts_of(value))
    yield from found
    if not found and value != LOOPBACK and _BARE_HOST.fullmatch(value) and _NAMES_A_HOST.fullmatch(name):
        beside = values.get(re.sub(r"(HOST|HOSTNAME|ADDR|ADDRESS)$", "PORT", name), "")
        yield value, int(beside) if beside.isdecimal() else None


def hosts_of(text: str) -> Iterator[tuple[str, int | None]]:
    """Hosts in URLs; where there is none, in a list of `host:port`."""
    urls = [(match["host"], _port(match["port"])) for match in _URL.finditer(text)]
    parts = [_HOST_AND_PORT.fullmatch(part) for part in re.split(r"[,;]", text)]
    listed = [(part["host"], _port(part["port"])) for part in parts if part]
    yield from (found for found in urls or listed if found[0] != LOOPBACK)


def _port(text: str | None) -> int | None:
    return int(text) if text else None
