"""The runbook's commands of git, make, pulumi and voice. Each is checked here, or `NOT_RUN` has the reason.

`tests/cluster/test_runbook.py` runs the kubectl commands.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest
import yaml

from stack.cli import _parser
from stack.model.settings import ROOT, parse_settings
from stack.voiceassistant import TENANT

COMMAND = r"(?:git|make|pulumi|voice) \S+ [^`\n]+?"
"""Matches a command with an argument after the subcommand. Without an argument, as in `voice docs`, a text only
mentions the command."""
FOUND = re.compile(rf"^ *({COMMAND})(?:  +#.*)?$|`({COMMAND})`", re.MULTILINE)
NOT_RUN = {
    "git revert COMMIT": "it changes the reader's repository",
    "pulumi up --stack ENV": "make engine-test runs it",
}
VALUES = {"ENV": "prod", "REVISION": "HEAD:prod", "SECRET": "gateway-jwt"}


def commands() -> Iterator[str]:
    for path in sorted((ROOT / "docs" / "runbook").glob("*.md")):
        for line, inline in FOUND.findall(path.read_text()):
            yield line or inline


COMMANDS = sorted(set(commands()))


def test_every_command_that_is_listed_as_not_run_is_in_the_runbook() -> None:
    assert set(COMMANDS) >= NOT_RUN.keys()


@pytest.mark.parametrize("command", [each for each in COMMANDS if each.startswith("voice ")])
def test_the_parser_accepts_each_command_of_voice(command: str) -> None:
    words = [VALUES.get(word, word) for word in shlex.split(command)[1:]]
    assert _parser().parse_args(words).run


def test_settings_are_accepted_after_the_commands_of_pulumi_have_changed_them() -> None:
    config = yaml.safe_load((ROOT / "Pulumi.prod.yaml").read_text())["config"]
    others = [each for each in COMMANDS if each not in NOT_RUN and not each.startswith("voice ")]
    assert others
    for command in others:
        key, *value = re.fullmatch(r"pulumi config (?:set|rm) --stack ENV --path (\S+)(?: (\S+))?", command).groups()  # type: ignore[union-attr]  # another command fails the test
        *path, last = key.split(".")
        place = config
        for name in path:
            place = place.setdefault(name, {})
        if value != [None]:
            place[last] = yaml.safe_load(value[0])
    settings = parse_settings(config, "prod", TENANT)
    assert settings.degraded
    assert settings.replicas
