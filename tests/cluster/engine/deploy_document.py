"""The commands of docs/deploy.md: those that a test runs, and why it cannot run the others."""

import re

from stack.model.settings import ROOT

DEPLOY, _, DESTROY = (ROOT / "docs" / "deploy.md").read_text().partition("\n## Destroy\n")
CODE = re.compile(r"```sh\n(.*?)```|`([^`\n]+)`", re.DOTALL)
COMMAND = re.compile(r"(?:PULUMI_\w+=\S+ )?(?:pulumi|kubectl) \S+ \S.*")
"""Shorter ones, such as `pulumi up`, are prose: they name no stack."""
TOY = "make engine-faults runs it, on the toy tenant: dev protects nothing, and leaves no namespace"
NOT_RUN = {
    'pulumi login "file://~?metadata=skip"': "the test's state is in a folder of its own, by PULUMI_BACKEND_URL",
    "pulumi login s3://BUCKET": "there is no object store",
    "pulumi stack init dev": "the Automation API has run it",
    "pulumi stack rm dev --force --preserve-config": "the cluster lives on",
    "pulumi config set --stack dev --secret --path secrets.gateway-jwt.public-key < FILE": "every secret has a value",
    "kubectl scale -n voice-data --replicas=0 statefulset/redis-node statefulset/redis-sentinel": "dev has one Valkey",
    "kubectl --context kind-voice --namespace voice-gateway port-forward service/gateway 8443:443": (
        "no container runs on kwok's nodes"
    ),
    "pulumi state unprotect --all --stack prod": TOY,
    "pulumi destroy --stack prod": TOY,
    "kubectl delete namespace voice-data": TOY,
}
"""Command → why the test of dev cannot run it."""


def commands(text: str) -> list[str]:
    """The commands of `pulumi` and `kubectl` in a part of the document, in its order, without those that cannot run."""
    lines = (line for block, inline in CODE.findall(text) for line in block.splitlines() or [inline])
    found = [re.sub(r"\s+#.*", "", line) for line in lines if COMMAND.fullmatch(line)]
    return [command for command in found if command not in NOT_RUN]


def block(sentence: str) -> str:
    """The commands in the block below a sentence."""
    _, _, below = DEPLOY.partition(sentence)
    found = re.search(r"```sh\n(.*?)```", below, re.DOTALL)
    assert found, sentence
    return found[1]
