"""Hook of mkdocs: draw the formulas of a page, which would else need a script to load.

A formula stands between dollars, as on the repository's own pages, in the part of TeX
that matplotlib knows. One that it does not know fails the build.
"""

import html
import re

from matplotlib.path import Path
from matplotlib.textpath import TextPath
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

FORMULA = re.compile(r"(?<![\w$`])\$(\S|\S[^$`\n]*\S)\$(?![\w$`])")
EM = 100  # units of the drawing
SVG = {Path.MOVETO: "M", Path.LINETO: "L", Path.CURVE3: "Q", Path.CURVE4: "C"}


def on_page_markdown(
    markdown: str, page: Page, config: MkDocsConfig, files: Files
) -> str:
    """Put drawings in the place of formulas."""
    return FORMULA.sub(lambda match: draw_formula(match[1]), markdown)


def draw_formula(tex: str) -> str:
    """Return a formula as an inline SVG, in the size and colour of the text around it.

    Raises:
        ValueError: If matplotlib does not know a part of it.
    """
    path = TextPath((0, 0), f"${tex}$", size=EM)
    lines = []
    for points, code in path.iter_segments(simplify=False):
        if code != Path.CLOSEPOLY:  # which has a point that means nothing
            points = points.reshape(-1, 2) * (1, -1)  # SVG counts downwards
            lines.append(SVG[code] + " ".join(f"{v:.0f}" for v in points.ravel()))
        else:
            lines.append("Z")
    left, bottom, width, height = path.get_extents().bounds
    return (
        f'<svg role="img" aria-label="{html.escape(tex)}" fill="currentColor" '
        f'viewBox="{left:.0f} {-bottom - height:.0f} {width:.0f} {height:.0f}" '
        f'style="height: {height / EM:.2f}em; max-width: 100%; '
        f'vertical-align: {bottom / EM:.2f}em"><path d="{"".join(lines)}"/></svg>'
    )
