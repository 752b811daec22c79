from __future__ import annotations

from typing import Any

import pytest

from tests.closed_schema import faults, misspellings
from tests.components.observability import grafana_schemas, log_schemas, probe_schemas, trace_schemas
from tests.components.observability.servers import VARIANTS, documents

SCHEMAS = {
    "jaeger": trace_schemas.JAEGER,
    "tempo": trace_schemas.TEMPO,
    "elasticsearch": log_schemas.ELASTICSEARCH,
    "kibana": log_schemas.KIBANA,
    "fluent-bit": log_schemas.FLUENT_BIT,
    "blackbox-exporter": probe_schemas.BLACKBOX_EXPORTER,
    "grafana": grafana_schemas.INI,
    "data-sources": grafana_schemas.DATA_SOURCES,
    "providers": grafana_schemas.PROVIDERS,
}
FILES = [(variant, name) for variant in VARIANTS for name in documents(variant)]


def test_every_file_has_a_schema() -> None:
    assert {name for _, name in FILES} == SCHEMAS.keys()


@pytest.mark.parametrize(("variant", "name"), FILES)
def test_a_configuration_matches_its_schema(variant: str, name: str) -> None:
    assert faults(SCHEMAS[name], documents(variant)[name]) == []


@pytest.mark.parametrize(("variant", "name"), FILES)
def test_the_schema_refuses_each_misspelt_key(variant: str, name: str) -> None:
    document: Any = documents(variant)[name]
    changed = list(misspellings(document))
    assert len(changed) > 5
    assert [path for path, misspelt in changed if not faults(SCHEMAS[name], misspelt)] == []
