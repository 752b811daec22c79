from __future__ import annotations

import re
import shlex

import pytest

from stack.cli import _parser
from stack.model.settings import ROOT
from tests.documents import Block, blocks, documents

RUN_BY = {
    ("README.md", "console"): ".ci/test-in-a-private-place",
    ("README.md", "python"): "tests/test_readme.py",
    ("docs/another-platform.md", "python"): "tests/test_another_platform.py",
    ("docs/comparison.md", "python"): "bench/comparison/examples.py",
    ("docs/deploy.md", "sh"): "tests/cluster/engine/deploy_document.py",
    ("docs/first-service.md", "console"): "tests/runtime/test_first_service.py",
    ("docs/first-service.md", "python"): "tests/runtime/test_first_service.py",
    ("docs/go.md", "go"): "tests/components/test_grpc_service_config.py",
    ("docs/grpc.md", "python"): "tests/runtime/grpc/test_docs.py",
    ("docs/health.md", "python"): "tests/runtime/test_docs.py",
    ("docs/models.md", "python"): "tests/models/test_docs.py",
    ("docs/review.md", "console"): "tests/test_review.py",
    ("docs/review.md", "sh"): "tests/stack/cli/test_ledgers.py",
    ("docs/runtime.md", "python"): "tests/runtime/test_docs.py",
    ("docs/sagas.md", "python"): "tests/saga/test_docs.py",
    ("docs/tracing.md", "python"): "tests/runtime/test_docs.py",
    ("docs/tutorial.md", "console"): "tests/test_tutorial.py",
    ("docs/tutorial.md", "sh"): "tests/test_tutorial.py",
}
"""Document and language → the test or program that runs these blocks of the document."""
RUNBOOK = "docs/runbook/"
"""Folder of documents. tests/cluster/test_runbook.py runs their commands, or lists a command with the reason not to."""
BLOCKS = [block for path in documents() for block in blocks(path)]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def named(block: Block) -> str:
    return f"{block.document}-{block.text[:30]!r}"


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.is_for_running], ids=named)
def test_a_block_has_a_test_or_a_reason_not_to_run_it(block: Block) -> None:
    test = RUN_BY.get((block.document, block.language))
    assert block.not_run or test or (block.document.startswith(RUNBOOK) and block.language in {"sh", "promql"}), (
        "name its test in RUN_BY, or mark it with <!-- not run: reason -->"
    )


@pytest.mark.parametrize(("block", "test"), RUN_BY.items(), ids=str)
def test_each_file_in_run_by_names_its_document(block: tuple[str, str], test: str) -> None:
    assert any((found.document, found.language) == block and not found.not_run for found in BLOCKS)
    assert block[0].removeprefix("docs/") in (ROOT / test).read_text(encoding="utf-8")


@pytest.mark.parametrize("block", BLOCKS, ids=named)
def test_the_voice_and_make_commands_of_a_block_exist(block: Block) -> None:
    for line in block.commands:
        words = shlex.split(line.partition(" && ")[0], comments=True) if line.startswith(("voice ", "make ")) else []
        if words[:1] == ["voice"]:
            assert _parser().parse_args(words[1:]).run
        elif words:
            assert {word for word in words[1:] if "=" not in word} - {".venv/.ready"} <= TARGETS


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_make_targets_that_a_document_names_exist(path: object) -> None:
    text = re.sub(r"```.*?```", "", str(getattr(path, "read_text")()), flags=re.DOTALL)  # noqa: B009
    named = {word for command in re.findall(r"`make ([a-z -]+)`", text) for word in command.split()}
    assert named <= TARGETS
