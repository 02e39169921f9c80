"""Sphinx configuration of the documentation site. `make docs` builds it into dist/docs."""

import logging
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))

if TYPE_CHECKING:
    from sphinx.application import Sphinx

logging.getLogger("alembic").setLevel(logging.WARNING)  # imported with the modules that autodoc reads

project = "occupancy-db"
author = "The occupancy-db developers"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinxcontrib.mermaid",
]
html_theme = "furo"
html_title = "occupancy-db"
html_copy_source = False
smartquotes = False  # options keep their two hyphens

# The anchors of headings are those that GitHub gives them, so that a link works in both places.
myst_heading_anchors = 4
# GitHub draws a fenced block of this name without Sphinx's directive syntax.
myst_fence_as_directive = ["mermaid"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"

OUTSIDE = re.compile(r"\]\((?P<path>\.\./[^)#\s]+)(?P<anchor>#[^)]*)?\)")
"""A link to a file with a relative path that begins with `..`."""


def expand(_app: "Sphinx", name: str, source: list[str]) -> None:
    """Insert the README and the roles' variables into their pages, and adapt links that leave docs/.

    Args:
        _app: The running Sphinx.
        name: The page, relative to docs/, without its suffix.
        source: The page's text; its only element is replaced.
    """
    text = source[0]
    if name == "index":
        text = text.replace("<!-- README -->", readme())
    if name == "reference/roles":
        text += "".join(role_variables(path) for path in sorted(ROOT.glob("roles/*/README.md")))
    page = DOCS / name
    source[0] = OUTSIDE.sub(lambda link: outside(page, link), text)


def readme() -> str:
    """The README as part of the site's first page: links are relative to docs/."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.sub(r"\]\((?!https?:|#)", "](../", text).replace("](../docs/", "](")


def role_variables(path: Path) -> str:
    """A role's README as a section of the page of all roles.

    Args:
        path: The README.
    """
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"<!--.*?-->\n*", "", text, flags=re.DOTALL)
    text = re.sub(r"^#", "##", text.partition("\nThe comments in ")[0], flags=re.MULTILINE)
    return "\n" + re.sub(r"\]\((?!https?:|#)", f"](../../roles/{path.parent.name}/", text)


def outside(page: Path, link: re.Match[str]) -> str:
    """A link out of docs/: a role's README is a section of the site, any other file is offered for download.

    Args:
        page: The page that holds the link.
        link: The link, as OUTSIDE finds it.
    """
    target = (page.parent / link["path"]).resolve()
    if target.is_relative_to(DOCS):
        return link[0]
    if target.name == "README.md" and target.parent.parent == ROOT / "roles":
        return f"](/reference/roles.md#{target.parent.name})"
    return f"](path:{link['path']})"


def setup(app: "Sphinx") -> None:
    """Register the extension to read pages."""
    app.connect("source-read", expand)
