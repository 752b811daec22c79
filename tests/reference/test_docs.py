from __future__ import annotations

import json
import re

from voice_reference.configuration import Configuration

from tests.examples import DOCUMENTS


def test_the_example_configuration_of_the_reference_service_is_valid() -> None:
    text = (DOCUMENTS / "reference-service.md").read_text()
    (example,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    assert Configuration.model_validate_json(example).addresses == json.loads(example)["addresses"]
