"""What a raster of others may make GDAL open: see docs/security.md."""

import os
import re
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from xml.etree import ElementTree

ALLOW_REMOTE = "BDLOSS_ALLOW_REMOTE"  # of the environment: 1 allows what bodies name
# The formats that orthophotos and masks come in; none of them is a list of addresses.
DRIVERS = (
    *("GTiff", "JP2OpenJPEG", "JPEG", "PNG", "BMP", "HFA", "ENVI", "ERS", "GPKG"),
    *("MBTiles", "MRF", "WEBP", "AAIGrid", "EHdr", "VRT"),
)
REMOTE = re.compile(r"\s*([a-z][a-z0-9+.-]*://|/vsi)", re.IGNORECASE)
HEAD = 4096  # bytes in which a file says that it is a virtual one
NAMES = ("SourceFilename", "SourceDataset", "GeolocationDataset", "LUTFilename")


def local_sources(path: str | PathLike) -> list[Path]:
    """Return the files that a virtual raster is made of, and those they are made of.

    Args:
        path: A raster of any format; one that is not virtual is made of no others.

    Raises:
        ValueError: If it, or one of them, is a list of addresses (XML or JSON that is
            no virtual raster), names remote files and that is not allowed, reads the
            bytes of any file as pixels, runs Python, or is damaged.
    """
    found: dict[Path, None] = {}
    waiting = [Path(path)]
    while waiting:
        for source in _sources_of(waiting.pop()):
            if source not in found:
                found[source] = None
                waiting.append(source)
    return list(found)


def _sources_of(path: Path) -> Iterator[Path]:
    if not path.is_file():
        return
    with path.open("rb") as file:
        head = file.read(HEAD)
    if b"<VRTDataset" not in head:
        if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"<", b"{"):
            raise ValueError(f"not a raster, but text that names some: {path}")
        return
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f"damaged raster: {path} ({error})") from error
    for element in root.iter():
        if element.get("subClass") == "VRTRawRasterBand":
            raise ValueError(
                "a virtual raster must be made of rasters, not of the bytes of any "
                f"file (VRTRawRasterBand): {path}"
            )
        if element.tag == "PixelFunctionLanguage" and element.text == "Python":
            raise ValueError(f"a virtual raster must not run Python: {path}")
        if element.tag not in NAMES or not element.text:
            continue
        name = element.text.strip()
        if REMOTE.match(name) or name.startswith("<"):
            if os.environ.get(ALLOW_REMOTE) != "1":
                raise ValueError(
                    f"a raster must not name remote files, got {name[:60]}; "
                    f"--allow-remote allows it: {path}"
                )
            continue
        relative = element.get("relativeToVRT") == "1"
        source = path.parent / name if relative else Path(name)
        if source.is_file():
            yield source
