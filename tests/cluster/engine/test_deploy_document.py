import importlib.metadata
import re

import yaml

from stack.model.settings import ROOT
from tests.cluster.engine.deploy_document import DEPLOY, DESTROY, NOT_RUN, commands

CLUSTER = ROOT / "tests" / "cluster"


def test_not_run_lists_only_commands_of_the_document() -> None:
    stale = [command for command in NOT_RUN if command not in DEPLOY + DESTROY]
    assert not stale


def test_commands_with_arguments_are_read_from_blocks_and_from_sentences() -> None:
    text = "Run `pulumi stack ls --json`, not `pulumi up`:\n```sh\nkubectl get pods  # all\n```\n"
    assert commands(text) == ["pulumi stack ls --json", "kubectl get pods"]


def test_the_documents_name_the_versions_that_the_tests_run() -> None:
    (cli,) = re.findall(r"pulumi/pkg/v3 v(\S+)", (CLUSTER / "tools" / "pulumi" / "go.mod").read_text())
    readme, project = (CLUSTER / "README.md").read_text(), yaml.safe_load((ROOT / "Pulumi.yaml").read_text())
    assert f"the CLI v{cli} " in readme
    assert f"the plugin {importlib.metadata.version('pulumi-kubernetes')} " in readme
    assert project["requiredPulumiVersion"] == f">={cli}"
    assert f"Install the Pulumi CLI, {cli.rpartition('.')[0]} or later" in DEPLOY
