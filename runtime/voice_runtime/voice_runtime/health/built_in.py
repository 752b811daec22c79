"""The built-in checkers: one module for each kind of check.

Each check except `disk` opens a new connection and closes it. If new connections fail, the check fails. The service's
open connections may still work.
"""

from __future__ import annotations

import importlib

from voice_policies import HealthCheck, PolicyBundle, ServiceSettings

from voice_runtime.health.check import Checker
from voice_runtime.health.disk import disk_checker
from voice_runtime.health.place import Place

STORES = frozenset({"postgresql", "redis"})
"""Kinds of checks that log in. The settings file must contain the connection to the callee."""


def built_in_checker(policy: HealthCheck, bundle: PolicyBundle, settings: ServiceSettings | None) -> Checker:
    """The checker for a check. Raises `ValueError` if its package, call or connection is missing."""
    if policy.kind == "disk":
        return disk_checker(policy)
    place = _place(policy, bundle, settings)
    try:
        kind = importlib.import_module(f"voice_runtime.health.{policy.kind}")
    except ModuleNotFoundError as error:
        raise ValueError(f"{error.name} is not installed: install voice-runtime[{policy.kind}]") from None
    checker: Checker = kind.checker(place)
    return checker


def _place(policy: HealthCheck, bundle: PolicyBundle, settings: ServiceSettings | None) -> Place:
    call = next((call for call in bundle.outbound if call.name == policy.target), None)
    if call is None:
        raise ValueError(f"target {policy.target!r} is not an outbound call of the bundle")
    connections = settings.connections if settings else ()
    connection = next((each for each in connections if each.name == call.callee), None)
    if connection is None and policy.kind in STORES:
        raise ValueError(f"the settings have no connection {call.callee!r}")
    return Place(policy, bundle.addresses_of(call)[0], bundle.metadata.service, connection)
