"""A saga's definition: the policy's steps, each with the code of its action and its compensation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from voice_policies import Fault, InvalidInputError, Saga, SagaStep

from voice_saga.context import Action
from voice_saga.errors import DefinitionMismatchError, UnknownSagaError

Stages = tuple[tuple[str, ...], ...]
"""Names of steps, by stage. The steps of a stage run in parallel, the stages in sequence."""


@dataclass(frozen=True)
class Plan:
    """The steps and stages of a saga. Together with the journal's entries they determine the next entries."""

    name: str
    version: int
    stages: Stages
    compensated: frozenset[str]
    """Steps that have a compensation."""

    @property
    def steps(self) -> tuple[str, ...]:
        """Every step, in the order of the policy."""
        return tuple(step for stage in self.stages for step in stage)

    @cached_property
    def after(self) -> dict[int, tuple[str, ...]]:
        """The next stage, by the number of steps that have begun."""
        return dict(zip(accumulate(map(len, self.stages), initial=0), self.stages, strict=False))

    @cached_property
    def siblings(self) -> dict[str, tuple[str, ...]]:
        """All steps of the same stage, by step."""
        return {step: stage for stage in self.stages for step in stage}

    @cached_property
    def fingerprint(self) -> str:
        """The hash that ties a running saga to its definition. It does not cover retries and timeouts."""
        shape = [self.name, self.version, self.stages, sorted(self.compensated)]
        return hashlib.sha256(json.dumps(shape).encode()).hexdigest()[:16]


class Definition:
    """A saga's policy and its code. Raises `InvalidInputError` with every missing and every superfluous action."""

    def __init__(self, policy: Saga, actions: Mapping[str, Action]) -> None:
        wanted = [name for step in policy.steps for name in (step.name, step.compensation) if name]
        faults = [
            *(
                Fault(name, "has no code", "expected an asynchronous function")
                for name in wanted
                if not callable(actions.get(name))
            ),
            *(Fault(name, "belongs to no step", f"expected {', '.join(wanted)}") for name in {*actions} - {*wanted}),
        ]
        if faults:
            raise InvalidInputError(f"saga {policy.name} version {policy.version}", sorted(faults, key=str))
        self.policy = policy
        self.actions = dict(actions)
        self.steps: dict[str, SagaStep] = {step.name: step for step in policy.steps}
        self.plan = Plan(
            policy.name,
            policy.version,
            tuple(tuple(step.name for step in stage) for stage in policy.stages),
            frozenset(step.name for step in policy.steps if step.compensation),
        )

    def compensation(self, step: str) -> Action:
        """The code that undoes a step. Raises `KeyError` for a step that the policy declares without a compensation."""
        return self.actions[self.steps[step].compensation or ""]


class Definitions:
    """The definitions of a process. Keep an older version of a saga until all sagas that began under it have ended."""

    def __init__(self, definitions: Iterable[Definition] = ()) -> None:
        self._known: dict[str, dict[int, Definition]] = {}
        for definition in definitions:
            versions = self._known.setdefault(definition.plan.name, {})
            if definition.plan.version in versions:
                fault = Fault(
                    definition.plan.name,
                    f"has version {definition.plan.version} twice",
                    "expected a different version for each definition",
                )
                raise InvalidInputError("saga definitions", [fault])
            versions[definition.plan.version] = definition

    def __iter__(self) -> Iterator[Definition]:
        return (definition for versions in self._known.values() for definition in versions.values())

    def newest(self, name: str) -> Definition:
        """The definition for a new saga. Raises `UnknownSagaError` if no definition has the name."""
        versions = self._known.get(name)
        if not versions:
            raise UnknownSagaError(f"no definition of saga {name!r}; known: {', '.join(sorted(self._known)) or 'none'}")
        return versions[max(versions)]

    def is_ahead(self, name: str, version: int) -> bool:
        """True if `version` is newer than all versions of this process. Only a newer process can run the saga."""
        return version > max(self._known.get(name, {}), default=0)

    def pinned(self, name: str, version: int, fingerprint: str) -> Definition:
        """The definition under which a running saga began.

        Raises `DefinitionMismatchError` if the process lacks the version, or has other steps under it. The error's text
        says what to deploy.
        """
        definition = self._known.get(name, {}).get(version)
        if definition is None:
            known = ", ".join(map(str, sorted(self._known.get(name, {})))) or "none"
            raise DefinitionMismatchError(
                f"began under {name} version {version}, which the worker does not have (its versions: {known}); "
                "deploy that version together with the newer one, then resume the saga"
            )
        if definition.plan.fingerprint != fingerprint:
            raise DefinitionMismatchError(
                f"the steps of {name} version {version} changed while the saga ran "
                f"({fingerprint} then, {definition.plan.fingerprint} now); give the changed steps a new version, "
                f"restore the steps of version {version}, then resume the saga"
            )
        return definition
