"""The site: `make docs` builds it, and every warning is an error."""

import lightning_retrieval_guard

project = "lightning-retrieval-guard"
author = "The lightning-retrieval-guard contributors"
copyright = "The lightning-retrieval-guard contributors"
release = lightning_retrieval_guard.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_enable_extensions = ["colon_fence"]
# Headings are linked to from other pages, by the names that GitHub gives them.
myst_heading_anchors = 3
nitpicky = False  # types of torch and Lightning have no pages here
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say what an argument means, and names of types would say it twice

html_theme = "furo"
html_title = "lightning-retrieval-guard"
html_static_path: list[str] = []
pygments_dark_style = "github-dark"  # the theme's own underlines names of packages, as if they were links
html_extra_path = ["report.schema.json"]
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1d4ed8", "color-brand-content": "#1d4ed8"},
    "dark_css_variables": {"color-brand-primary": "#93c5fd", "color-brand-content": "#93c5fd"},
}
