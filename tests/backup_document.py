"""The commands of docs/backup.md: `carry_out` runs them with real stores, except the commands in `NOT_RUN`."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable

from stack.model.settings import ROOT

TEXT = (ROOT / "docs" / "backup.md").read_text()
_WORDS = r"(?:kubectl|pulumi|aws) [^\s`]+ \S[^`\n]*"
COMMAND = re.compile(rf"^({_WORDS}?)(?: +#.*)?$|`({_WORDS})`", re.MULTILINE)
"""Pattern of a command with an argument after the subcommand. A text without the argument only mentions the command."""
STOP = "tests/cluster/test_runbook.py runs it as a dry run on a cluster with every service"
OPERATOR = "the command needs the operator and an object store, and the tests run neither"
NOT_RUN = {
    "kubectl scale -n voice-apps --replicas=0 deployment --all": STOP,
    "kubectl scale -n voice-apps --replicas=1 deployment --all": STOP,
    "kubectl delete -n voice-data cluster postgresql": OPERATOR,
    "aws s3 mv --recursive s3://BUCKET/postgresql/ s3://BUCKET/postgresql-lost/": OPERATOR,
    "pulumi config set --stack prod --path backups.recover_from postgresql-lost": OPERATOR,
    "pulumi refresh --stack prod": OPERATOR,
    "pulumi up --stack prod": OPERATOR,
    "kubectl cnpg status -n voice-data postgresql": OPERATOR,
}
"""Command → the reason why `carry_out` skips it."""


def commands(heading: str = "") -> list[str]:
    """The commands below a heading, or in the whole document, each one once."""
    below = TEXT.partition(f"{heading}\n")[2] if heading else TEXT
    section = re.split(r"\n##+ ", below)[0] if heading else below
    return list(dict.fromkeys(block or inline for block, inline in COMMAND.findall(section)))


def carry_out(
    heading: str, run: Callable[[str], subprocess.CompletedProcess[str]], lose: Callable[[], None]
) -> dict[str, str]:
    """Carries out a section's commands in order. Before each restore it calls `lose`, which deletes the data.

    For `kubectl create job` it calls `run` with the CronJob's name. `kubectl wait` and `kubectl logs` need a job that
    has succeeded.

    Returns:
        The output of each job by the job's name.
    """
    finished: dict[str, str] = {}
    for command in commands(heading):
        if command in NOT_RUN:
            continue
        if created := re.fullmatch(r"kubectl create job -n \S+ (\S+) --from=cronjob/(\S+)", command):
            job, template = created.groups()
            if template.endswith("-restore"):
                lose()
            done = run(template)
            assert done.returncode == 0, (command, done.stderr)
            finished[job] = done.stdout
        else:
            asked = re.fullmatch(r"kubectl (?:wait|logs) -n \S+ .*\bjob/(\S+?)(?: --timeout=\S+)?", command)
            assert asked, f"the tests cannot carry out this command, and NOT_RUN does not contain it: {command}"
            assert finished[asked[1]], command
    return finished
