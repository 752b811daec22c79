from tests.cluster.engine.deploy_document import DEPLOY, DESTROY, NOT_RUN, commands


def test_every_exception_is_a_command_of_the_document() -> None:
    stale = [command for command in NOT_RUN if command not in DEPLOY + DESTROY]
    assert not stale


def test_commands_are_read_from_blocks_and_from_sentences() -> None:
    text = "Run `pulumi stack ls --json`, not `pulumi up`:\n```sh\nkubectl get pods  # all\n```\n"
    assert commands(text) == ["pulumi stack ls --json", "kubectl get pods"]
