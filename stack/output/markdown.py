"""Templates of Markdown documents."""

from __future__ import annotations

from pathlib import Path

import jinja2

TEMPLATES = Path(__file__).with_name("templates")


def filled(name: str, folder: Path = TEMPLATES, /, **values: object) -> str:
    """The text of a filled template. A value that the template names but does not get is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, TEMPLATES]),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - the values come from our own catalogue, and the output is Markdown
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    text: str = environment.get_template(name).render(values)
    return text
