"""Stores, views and probers of an environment, as the tiers build them, with the files of each."""

from __future__ import annotations

import configparser
import json
from functools import cache
from typing import Any, TypeVar

import yaml

from components.component import Component
from components.observability.blackbox_exporter import BlackboxExporter
from components.observability.elasticsearch import Elasticsearch
from components.observability.fluent_bit import FluentBit
from components.observability.grafana import Grafana
from components.observability.jaeger import Jaeger
from components.observability.kibana import Kibana
from components.observability.tempo import Tempo
from tests.platforms import platform

Kind = TypeVar("Kind", bound=Component)
REPLICATED = ("staging", "prod")


@cache
def the(kind: type[Kind], environment: str = "prod") -> Kind:
    (found,) = (each for each in platform(environment).components if isinstance(each, kind))
    return found


def rendered(component: Component, kind: str) -> list[dict[str, Any]]:
    return [dict(resource) for resource in component.resources() if resource["kind"] == kind]


def documents(environment: str) -> dict[str, Any]:
    """Every configuration file, parsed as its reader parses it: by name of the schema that it is held against."""
    graphics = the(Grafana, environment).files
    ini = configparser.ConfigParser(interpolation=None)
    ini.read_string(graphics["grafana.ini"])
    found = {
        "jaeger": yaml.safe_load(the(Jaeger, environment).files["jaeger.json"]),
        "tempo": yaml.safe_load(the(Tempo, environment).files["tempo.json"]),
        "elasticsearch": yaml.safe_load(the(Elasticsearch, environment).files["elasticsearch.yml"]),
        "grafana": {name: dict(ini[name]) for name in ini.sections()},
        "data-sources": yaml.safe_load(graphics["datasources.yaml"]),
        "providers": yaml.safe_load(graphics["dashboards.yaml"]),
        "blackbox-exporter": json.loads(the(BlackboxExporter, environment).files["blackbox.json"]),
        **{f"dashboard-{each.uid}": json.loads(each.text) for each in the(Grafana, environment).dashboards},
    }
    if environment in REPLICATED:
        found["kibana"] = yaml.safe_load(the(Kibana, environment).files["kibana.yml"])
        found["fluent-bit"] = yaml.safe_load(the(FluentBit, environment).files["fluent-bit.yaml"])
    return found
