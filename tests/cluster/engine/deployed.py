from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from pulumi.automation import CommandError

from tests.cluster.engine.engine import Stack
from tests.cluster.engine.site import Site


@dataclass(frozen=True)
class Deployed:
    site: Site
    stack: Stack

    def changes(self) -> list[str]:
        previewed = [str(change) for change in self.stack.run("preview")]
        updated = [str(change) for change in self.stack.run("up")]
        # Wait, because a refresh during a rollout would find objects that are not ready yet.
        self.site.cluster.wait_ready()
        assert previewed == updated
        return updated

    @contextmanager
    def configured(self, settings: Mapping[str, str]) -> Iterator[None]:
        before = self.stack.automation.get_all_config()
        self.stack.configure(settings)
        try:
            yield
        finally:
            for key in settings:
                if key in before:
                    self.stack.automation.set_config(key, before[key])
                else:
                    self.stack.automation.remove_config(key)

    def refusal(self) -> str:
        before = self.stack.resources()
        with pytest.raises(CommandError) as refused:
            self.stack.run("preview")
        assert self.stack.resources() == before
        return str(refused.value)
