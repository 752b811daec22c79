"""Writes a Helm chart from a tree that `bench.render.generated` rendered. The chart renders the same objects.

    python -m bench.render.chart build/bench/render/16 build/bench/render/16-chart

The common parts of the services become templates, and the differences become values. The benchmark compares
`helm template` of this chart with `voice render`. The comparison favours Helm: the chart contains
all labels and the files of ConfigMaps, so its templates compute nothing.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stack.model.manifest_yaml import documents

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """One service's value at one place of a manifest. `scope` collects the values that the template reads there."""

    service: str
    value: Any
    scope: dict[str, Any]

    def inner(self, key: str | int) -> Part:
        """The part below a key or a position."""
        return Part(self.service, self.value[key], self.scope)


class Template:
    """A template that renders one resource for each service that has this resource."""

    def __init__(self, slot: str, parts: list[Part]) -> None:
        """Build the template. The values that it needs are added to the scopes of `parts`."""
        self._slot = slot
        self._used = 0
        self._lines: list[str] = []
        present = self._key()
        for part in parts:
            part.scope[present] = True
        self._lines += ["{{- range .Values.services }}{{- $name := .name }}", f"{{{{- if .{present} }}}}", "---"]
        self._mapping(parts, "")
        self._lines += ["{{- end }}{{- end }}"]

    @property
    def text(self) -> str:
        """The content of the file below `templates/`."""
        return "\n".join(self._lines) + "\n"

    def _node(self, parts: list[Part], indent: str, key: str | None = None) -> None:
        """Add the lines for the value of a key, or for an item of a sequence."""
        head = f"{indent}-" if key is None else f"{indent}{json.dumps(key)}:"
        kinds = {type(part.value) for part in parts}
        filled = all(part.value for part in parts)
        if kinds == {dict} and filled:
            self._lines.append(head)
            self._mapping(parts, indent + "  ")
        elif kinds == {list} and filled:
            self._lines.append(head)
            self._sequence(parts, indent)
        else:
            self._lines.append(f"{head} {self._leaf(parts, key)}")

    def _mapping(self, parts: list[Part], indent: str) -> None:
        keys = dict.fromkeys(key for part in parts for key in part.value)
        for key in keys:
            having = [part for part in parts if key in part.value]
            present = self._key() if len(having) < len(parts) else None
            if present:
                self._lines.append(f"{{{{- if .{present} }}}}")
                for part in having:
                    part.scope[present] = True
            self._node([part.inner(key) for part in having], indent, key)
            if present:
                self._lines.append("{{- end }}")

    def _sequence(self, parts: list[Part], indent: str) -> None:
        lengths = {len(part.value) for part in parts}
        if len(lengths) == 1:
            for position in range(lengths.pop()):
                self._node([part.inner(position) for part in parts], indent)
            return
        key = self._key()
        items = []
        for part in parts:
            part.scope[key] = [{} for _ in part.value]
            items += [Part(part.service, *pair) for pair in zip(part.value, part.scope[key], strict=True)]
        self._lines.append(f"{{{{- range .{key} }}}}")
        self._node(items, indent)
        self._lines.append("{{- end }}")

    def _leaf(self, parts: list[Part], file: str | None) -> str:
        if any(isinstance(part.value, str) and "\n" in part.value for part in parts):
            return f'{{{{ $.Files.Get (printf "files/%s/{self._slot}/{file}" $name) | toJson }}}}'
        texts = {json.dumps(part.value).replace(part.service, "{{ $name }}") for part in parts}
        if len(texts) == 1:
            return texts.pop()
        key = self._key()
        for part in parts:
            part.scope[key] = part.value
        return f"{{{{ .{key} | toJson }}}}"

    def _key(self) -> str:
        self._used += 1
        return f"{self._slot.replace('-', '_')}_{self._used}"


def write_chart(tree: Path, chart: Path) -> None:
    """Write the chart of a rendered tree to `chart`, and its values to `<chart>.yaml`."""
    shutil.rmtree(chart, ignore_errors=True)
    _write(chart / "Chart.yaml", "apiVersion: v2\nname: voiceassistant\nversion: 1.0.0\n")
    for path in tree.glob("manifests/10-namespaces/*.yaml"):
        _write(chart / "templates" / path.name, path.read_text(encoding="utf-8"))
    slots: dict[str, list[Part]] = defaultdict(list)
    values: list[dict[str, Any]] = []
    for path in sorted(tree.glob("manifests/50-services/*.yaml")):
        scope: dict[str, Any] = {"name": path.stem}
        values.append(scope)
        for manifest in yaml.load_all(path.read_bytes(), Loader=yaml.CSafeLoader):
            slot = (manifest["kind"] + manifest["metadata"]["name"].removeprefix(path.stem)).lower()
            slots[slot].append(Part(path.stem, manifest, scope))
            for key, text in manifest.get("data", {}).items():
                _write(chart / "files" / path.stem / slot / key, text)
    for slot, parts in slots.items():
        _write(chart / "templates" / f"{slot}.yaml", Template(slot, parts).text)
    _write(chart.with_suffix(".yaml"), documents([{"services": values}]))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_chart(Path(sys.argv[1]), Path(sys.argv[2]))
