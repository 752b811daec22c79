from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.stack.voiceassistant.test_dashboards import expressions, sent

pytestmark = pytest.mark.cluster


def test_promtool_parses_every_query(promtool: Path, tmp_path: Path) -> None:
    queries = sorted({sent(expression) for expression in expressions()})
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "queries.json"
    file.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    checked = subprocess.run([promtool, "check", "rules", file], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert f"{len(queries)} rules found" in checked.stdout
    file.write_text(file.read_text().replace("sum by", "sum bye", 1))
    assert subprocess.run([promtool, "check", "rules", file], capture_output=True, check=False).returncode != 0
