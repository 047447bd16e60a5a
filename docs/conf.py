"""How Sphinx builds these pages; `python -m tests.gate docs` does, warnings as errors."""

import inspect
from collections.abc import Sequence
from importlib.metadata import version as installed_version
from types import ModuleType

from sphinx.application import Sphinx

import trio_wsprim
import trio_wsprim.abc
import trio_wsprim.testing

project = "trio_wsprim"
author = "The trio_wsprim authors"
project_copyright = author
release = version = installed_version("trio-wsprim")

# No intersphinx: it fetches other projects' inventories, and the build must not need the network.
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = project
# Fragments of the changelog are not pages of their own.
exclude_patterns = ["_build", "changes", "examples"]

# Lets a page link to `#a-heading` of another.
myst_heading_anchors = 3

# Docstrings are written with single backticks, as in Markdown.
default_role = "code"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True


def directive_for(public: object) -> str:
    """Name autodoc's directive for a public object."""
    if inspect.isclass(public):
        return "autoexception" if issubclass(public, BaseException) else "autoclass"
    return "autofunction" if inspect.isroutine(public) else "autodata"


DIRECTIVES = ("autofunction", "autoclass", "autoexception", "autodata")


def reference_to(module: ModuleType, directives: Sequence[str]) -> str:
    """Write out one entry for each public name of `module` that one of the directives fits."""
    names: list[str] = module.__all__
    entries = [
        f".. {directive}:: {module.__name__}.{name}\n"
        for directive in directives
        for name in names
        if directive_for(getattr(module, name)) == directive
    ]
    return "\n".join(["```{eval-rst}", *entries, "```"])


def fill_in_reference(_app: Sphinx, page: str, source: list[str]) -> None:
    """Put the public names where `reference.md` says `<!-- autofunction -->` or `<!-- trio_wsprim.abc -->`.

    Taken from `__all__` rather than listed, so that no public name can be forgotten.
    """
    if page != "reference":
        return
    for directive in DIRECTIVES:
        source[0] = source[0].replace(f"<!-- {directive} -->", reference_to(trio_wsprim, [directive]))
    for module in (trio_wsprim.abc, trio_wsprim.testing):
        source[0] = source[0].replace(f"<!-- {module.__name__} -->", reference_to(module, DIRECTIVES))


def setup(app: Sphinx) -> None:
    """Be a Sphinx extension of our own."""
    app.connect("source-read", fill_in_reference)
