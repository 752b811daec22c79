"""The commands of docs/deploy.md that a test runs, and the reason for each command that no test runs."""

import re
from functools import reduce

from stack.model.settings import ROOT
from tests.cluster.engine.site import Site

DEPLOY, _, DESTROY = (ROOT / "docs" / "deploy.md").read_text().partition("\n## Destroy\n")
CODE = re.compile(r"```sh\n(.*?)```|`([^`\n]+)`", re.DOTALL)
COMMAND = re.compile(r"(?:PULUMI_\w+=\S+ )?(?:pulumi|kubectl) \S+ \S.*")
"""A command has an argument after the subcommand. A subcommand alone, such as `pulumi up`, is only mentioned."""
TOY = "make engine-faults runs the command on the toy tenant, because dev has no protected resource"
NOT_RUN = {
    'pulumi login "file://~?metadata=skip"': "PULUMI_BACKEND_URL names the state folder of the test",
    "pulumi login s3://BUCKET": "the test has no object store",
    "pulumi stack init dev": "the Automation API has created the stack",
    "pulumi stack rm dev --force --preserve-config": "the command is for a new cluster, and the test keeps its cluster",
    "pulumi config set --stack dev --secret --path secrets.gateway-jwt.public-key < FILE": "the test sets all secrets",
    "kubectl scale -n voice-data --replicas=0 statefulset/redis-node statefulset/redis-sentinel": (
        "dev has none of these StatefulSets"
    ),
    "kubectl --context kind-voice --namespace voice-gateway port-forward service/gateway 8443:443": (
        "no container runs on kwok's nodes"
    ),
    "pulumi state unprotect --all --stack prod": TOY,
    "pulumi destroy --stack prod": TOY,
    "kubectl delete namespace voice-data": "no namespace remains after the destruction of dev",
}


def commands(text: str) -> list[str]:
    """The `pulumi` and `kubectl` commands in a part of the document, in order, without those in `NOT_RUN`."""
    lines = (line for block, inline in CODE.findall(text) for line in block.splitlines() or [inline])
    found = [re.sub(r"\s+#.*", "", line) for line in lines if COMMAND.fullmatch(line)]
    return [command for command in found if command not in NOT_RUN]


def block(sentence: str) -> str:
    """The commands in the first code block after a sentence."""
    _, _, below = DEPLOY.partition(sentence)
    found = re.search(r"```sh\n(.*?)```", below, re.DOTALL)
    assert found, sentence
    return found[1]


def for_dev(command: str, site: Site) -> str:
    """A documented command for the stack and the cluster of the test, with a value for each placeholder."""
    here = {
        "--stack prod": "--stack dev",
        "kind-voice": site.context,
        "kubernetes:context NAME": f"kubernetes:context {site.context}",
        "< FILE": f"< {site.cluster.kubectl.kubeconfig}",
    }
    return reduce(lambda text, written: text.replace(written, here[written]), here, command)
