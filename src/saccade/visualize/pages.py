"""HTML pages: each a single file that loads nothing from the network."""

from __future__ import annotations

from importlib import resources
from typing import Any


def render_page(package: str, template: str, **values: Any) -> str:
    """Render a Jinja template, a file of ``package``, with escaped values.

    Templates extend ``page.html`` of this package, which has the style sheet.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: _text("saccade.visualize", name)),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.from_string(_text(package, template)).render(**values)


def _text(package: str, name: str) -> str:
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")
