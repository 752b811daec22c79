from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import pytest
import voice_models
from voice_models import fake_answers as fake
from voice_models.classification import ErrorClass
from voice_models.fake_provider import FakeProvider

from tests.bundles import mount
from tests.examples import DOCUMENTS, run_examples
from tests.models.routes import PATIENT, routed, served_elsewhere

TEXT = (DOCUMENTS / "models.md").read_text()


def test_the_examples_in_the_document_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_bundle(tmp_path)
    provider = FakeProvider(lambda _: fake.chat_stream("The ", "moon."))
    with served_elsewhere(provider) as addresses:
        mounted = mount(tmp_path / "policy", routed(tmp_path, addresses=addresses, route={"timeout": PATIENT}))
        paths = {"/etc/voice/policy": mounted} | {name: tmp_path / name for name in ("policy.json", "laptop")}
        assert run_examples("models.md", paths) == 2
    assert len(provider.exchanges) == 1
    assert capsys.readouterr().out == "The moon.\n"


def write_bundle(directory: Path) -> None:
    """Write the document's bundle with the test's key file, and with time limits that a busy machine does not reach."""
    key = directory / "key"
    key.write_text("made-up")
    (text,) = re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)
    document = json.loads(text.replace("/tmp/voice-key", str(key)))  # noqa: S108  # the path in the document
    document["models"]["routes"]["llm.generate"]["timeout"] = PATIENT.model_dump(mode="json")
    document["outbound"][0]["timeout"] = {"attempt": "10m", "overall": "10m"}
    (directory / "policy.json").write_text(json.dumps(document))


def test_the_errors_and_error_classes_in_the_document_exist() -> None:
    for name in re.findall(r"`(Model\w+Error)`", TEXT):
        assert hasattr(voice_models, name), name
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| (?:next|only|no other)", TEXT, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert len(named) == 12
    assert named <= set(get_args(ErrorClass))
