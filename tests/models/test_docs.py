"""The examples of the document run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import voice_models
from voice_models import fake_answers as fake
from voice_models.classification import ErrorClass
from voice_models.fake_provider import FakeProvider

from tests.bundles import mount
from tests.examples import DOCUMENTS, run_examples
from tests.models.routes import PATIENT, routed, served_elsewhere

TEXT = (DOCUMENTS / "models.md").read_text()


def test_the_examples_of_models_run(tmp_path: Path) -> None:
    provider = FakeProvider(lambda _: fake.chat_stream("The ", "moon."))
    with served_elsewhere(provider) as addresses:
        mounted = mount(tmp_path / "policy", routed(tmp_path, addresses=addresses, route={"timeout": PATIENT}))
        assert run_examples("models.md", {"/etc/voice/policy": mounted}) == 1
    assert len(provider.exchanges) == 1


def test_the_errors_and_classes_in_the_document_exist() -> None:
    for name in re.findall(r"`(Model\w+Error)`", TEXT):
        assert hasattr(voice_models, name), name
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| (?:next|only|returned)", TEXT, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert len(named) == 12
    assert named <= set(get_args(ErrorClass))
