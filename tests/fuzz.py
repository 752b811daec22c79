"""Changes files of settings and catalogues at random, and counts the exit codes of `voice check`.

    python -m tests.fuzz 10000

Every exit code must be one of `stack.cli.status`. An exception is a bug: it ends the run, which prints the number of
the input, the seed and the file of settings.
"""

from __future__ import annotations

import io
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

from components.node import Dependency, Gateway, Node, Service
from stack.cli import main
from stack.cli.status import BAD_INPUT, CLEAN, DATA_AT_RISK, FINDINGS
from stack.model import settings
from stack.model.environments import load_environment
from stack.model.settings import ROOT, Settings
from stack.model.tenant import Tenant
from tests import toy
from tests.platforms import with_nodes
from tests.stack.model.test_fuzzed_models import MODEL, changed, changes
from tests.stack.model.test_hostile_settings import GOOD, HOSTILE

STATUSES = (CLEAN, FINDINGS, BAD_INPUT, DATA_AT_RISK)
VALUES = (
    *("dev", "prod", "true", "~", "010", "1:30", "-1", "0", "3", "1.5", "1d", "20%", "150%", "info", "x" * 500),
    *(
        "10.0.0.0/8",
        "10.0.0.1/8",
        "a.example.com",
        "{}",
        "[]",
        "[orders]",
        "[prices, stock]",
        "{orders: {min: 1, max: 2}}",
    ),
    *("{cidr: 10.0.0.0/16, port: 6443}", "{network: 10.9.0.0/24}", "{bucket: b, retention: 7d, network: 10.9.0.0/24}"),
    *("{retention: 2d, storage: 1Gi}", "{secure: v1:abc}", "{stock: {host: a.b, port: 1, network: 10.9.1.0/24}}"),
)
PIECES = ("", " ", ":", "{", "}", "[", "- ", "#", "\n", "\t", '"', "&a ", "*a", "0", "é", "\x00", "config:")
TEXTS = [text for text, _ in HOSTILE.values() if isinstance(text, str) and len(text) < 1000]
MODEL_CHANGES = list(changes(MODEL))


class Result:
    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.validated = 0
        """Number of files that reached the parser of settings, plus number of catalogues with valid nodes."""


def fuzz(count: int, seed: int = 0) -> Result:
    """Check `count` inputs: half are files of settings, half are catalogues. Raises any exception of `voice check`."""
    chance, result = random.Random(seed), Result()  # noqa: S311  # no secret
    with tempfile.TemporaryDirectory() as folder, _settings_in(Path(folder), result):
        for number in range(count):
            text, build = (_file(chance), _toy) if number % 2 else (_development(), _catalogue(chance, result))
            try:
                (Path(folder) / "Pulumi.dev.yaml").write_text(text, encoding="utf-8", errors="surrogatepass")
                with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                    status = main(["check", "dev"], build)
            except BaseException:
                sys.stderr.write(f"input {number} of seed {seed}:\n{text}\n")
                raise
            result.statuses[status] += 1
    return result


@contextmanager
def _settings_in(folder: Path, result: Result) -> Iterator[None]:
    """Reads the environment's file from `folder`, and counts the files that reach the parser of settings."""
    parse = settings.parse_settings

    def counted(config: Any, environment: str, choices: Any, faults: Any) -> Settings:
        result.validated += choices is toy.TENANT
        return parse(config, environment, choices, faults)

    with (
        patch.object(load_environment, "__defaults__", (folder, None)),
        patch.object(settings, "parse_settings", counted),
    ):
        yield


def _toy() -> Tenant:
    return toy.TENANT


def _development() -> str:
    return (ROOT / "Pulumi.dev.yaml").read_text(encoding="utf-8")


def _file(chance: random.Random) -> str:
    """A valid file and one to three more settings with random values, or a file with one random change of its text."""
    if chance.random() < 0.6:
        names = chance.sample(sorted(Settings.model_fields), chance.randint(1, 3))
        lines = (f"  voiceassistant:{name}: {chance.choice(VALUES)}\n" for name in names)
        return GOOD + "".join(lines)
    text = chance.choice([GOOD, *TEXTS])
    start = chance.randint(0, len(text))
    return text[:start] + chance.choice(PIECES) + text[start + chance.randint(0, 20) :]


def _catalogue(chance: random.Random, result: Result) -> Callable[[], Tenant]:
    model: Any = MODEL
    for path, value in chance.choices(MODEL_CHANGES, k=chance.randint(0, 4)):
        model = changed(model, path, value)

    def build() -> Tenant:
        nodes: list[Node] = [Dependency.model_validate(model["store"]), *map(Service.model_validate, model["services"])]
        if routes := model["routes"]:
            values = {"name": "gateway", "namespace": "voice-gateway", "availability": "99.99%", "operations": routes}
            nodes.append(Gateway.model_validate(values))
        result.validated += 1
        return with_nodes(*nodes)

    return build


if __name__ == "__main__":
    found = fuzz(int(sys.argv[1]))
    ends = ", ".join(f"{count} with exit code {status}" for status, count in sorted(found.statuses.items()))
    sys.stdout.write(f"{found.statuses.total()} inputs ended: {ends}; {found.validated} reached validation\n")
    sys.exit(not set(found.statuses) <= set(STATUSES))
