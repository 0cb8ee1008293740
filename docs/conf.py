"""Sphinx configuration. Build with: python -m sphinx -W --keep-going -b html docs docs/_build/html."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

import live  # noqa: E402

import gpuseq  # noqa: E402

project = "gpuseq"
author = "The gpuseq developers"
copyright = "The gpuseq developers, Apache-2.0"
version = release = gpuseq.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "numpydoc",
    "myst_parser",
    "live",  # what only the built pages have; the rest of what comes from the code is written into them by made.py
]
exclude_patterns = ["_build", "_ext"]
source_suffix = {".md": "markdown"}

# Every link between pages, headings and objects is checked; the build runs with warnings as errors.
nitpicky = True
default_role = "py:obj"
# Names in docstrings that are no link: parameters, types in words, the standard library, NumPy and Pillow.
rooms = "base cli decode feed files iterators ops plan sources transforms"
nitpick_ignore_regex = [
    (r"py:.*", r"(?!gpuseq\b).*"),
    # Layers below the public names: their own text is for those who read the code.
    (r"py:.*", rf"gpuseq\.(keras\.fit_progress|{'|'.join(rooms.split())})(\..*)?"),
]
# A re-exported option or an opener shows up under both its names; the page of the public one is the one to read.
suppress_warnings = ["myst.header"]

# The pages say what is there; no framework needs to be installed for that.
autodoc_mock_imports = ["cupy", "jax", "keras", "ray", "tensorflow", "tf_keras", "torch"]
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "undoc-members": False}
autosummary_generate = False  # numpydoc brings the extension; the pages here are written by hand
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
numpydoc_validation_checks: set[str] = set()

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

html_theme = "pydata_sphinx_theme"
html_title = f"gpuseq {release}"
html_static_path = ["_static"]
html_css_files = ["gpuseq.css"]
html_show_sourcelink = False
# Pages without pages below them have no navigation beside them.
html_sidebars = {name: [] for name in live.TREE["index"] if "/" not in name}
html_context = {"default_mode": "auto"}
toc_object_entries_show_parents = "hide"  # the names of methods alone fit beside a page
html_theme_options = {
    "header_links_before_dropdown": 3,
    "show_prev_next": True,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "navbar_end": ["theme-switcher"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_toc_level": 2,
}
