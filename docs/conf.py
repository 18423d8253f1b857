"""The site of these pages with the API reference: ``make docs`` builds it into build/docs."""

from __future__ import annotations

import saccade

project = "Saccade"
author = "The Saccade developers"
release = saccade.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = f"Saccade {release}"
default_role = "code"  # a name in single backticks
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
myst_heading_anchors = 3
# Links to files of the repository that are no pages; tests/test_documents.py checks that they exist.
suppress_warnings = ["myst.xref_missing"]
