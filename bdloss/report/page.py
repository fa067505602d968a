"""A page: one HTML file with its styles, its scripts and its data inside."""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bdloss.files import atomic_path, refuse_existing

# Of Okabe and Ito (2008), which the colour-blind tell apart, on light and dark.
TRUE, PREDICTED, OTHER = "#e69f00", "#56b4e9", "#cc79a7"
NEAR, MISSED, FALSE = "#f0e442", "#0072b2", "#d55e00"
CLASSES = (PREDICTED, "#d55e00", "#009e73", "#f0e442", "#0072b2", "#cc79a7")
URL = re.compile(r"url\([^)]*\)")  # of Leaflet's own pictures, which are not used


def write_page(
    path: str | PathLike,
    title: str,
    body: str,
    data: Mapping[str, Any],
    *,
    with_map: bool = False,
    overwrite: bool = False,
) -> None:
    """Write a page.

    Its content security policy lets nothing be fetched and nothing be run but what is
    in it, by digest.

    Args:
        path: HTML file to write.
        title: Of the page; any text.
        body: HTML of its body, of which the texts are escaped.
        data: What its script reads, as JSON.
        with_map: Whether it has a map, drawn by Leaflet.
        overwrite: Whether a file that exists may be replaced.

    Raises:
        FileExistsError: If the file exists and may not be replaced.
    """
    path = Path(path)
    refuse_existing(path, overwrite)
    styles, scripts = [_read("page.css")], []
    if with_map:
        styles.insert(0, URL.sub("none", _read_leaflet("leaflet.css")))
        scripts = [_read_leaflet("leaflet.js"), _read("map.js")]
    policy = (
        "default-src 'none'; img-src data:; "
        f"style-src {_digests(styles)}; script-src {_digests(scripts)}; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(title)}</title>",
        *(f"<style>{style}</style>" for style in styles),
        f"</head>\n<body>\n{body}",
        f'<script type="application/json" id="data">{_as_json(data)}</script>',
        *(f"<script>{script}</script>" for script in scripts),
        "</body>\n</html>\n",
    ]
    with atomic_path(path) as partial:
        partial.write_text("\n".join(parts), "utf-8")


def table_of(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as HTML; its texts are escaped."""

    def line(cells: Sequence[str], tag: str) -> str:
        inside = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)
        return f"<tr>{inside}</tr>"

    lines = "".join(line(row, "td") for row in rows)
    return f"<table><thead>{line(head, 'th')}</thead><tbody>{lines}</tbody></table>"


def picture_of(content: bytes, kind: str) -> str:
    """Return a picture as an address that holds it: of kind `png` or `jpeg`."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def encode_png(pixels: np.ndarray) -> str:
    """Return RGBA pixels `(height, width, 4)`, uint8, as an address that holds them."""
    colours = cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGRA)
    return picture_of(cv2.imencode(".png", colours)[1].tobytes(), "png")


def _read(name: str) -> str:
    return (resources.files("bdloss.report") / name).read_text("utf-8")


def _read_leaflet(name: str) -> str:
    folder = resources.files("xstatic.pkg.leaflet") / "data"
    return (folder / name).read_text("utf-8")


def _digests(texts: Sequence[str]) -> str:
    """Return the sources of a policy that lets just these texts be used."""
    found = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in texts
    ]
    return " ".join(f"'sha256-{digest}'" for digest in found) or "'none'"


def _as_json(data: Mapping[str, Any]) -> str:
    """Return JSON that no HTML can be ended by."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
