"""What a raster of others may make GDAL open: see docs/security.md."""

import os
import re
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from xml.etree import ElementTree

from bdloss.errors import DamagedFileError, InputError

ALLOW_REMOTE = "BDLOSS_ALLOW_REMOTE"  # of the environment: 1 allows what bodies name
# The formats that orthophotos and masks come in; none of them is a list of addresses.
DRIVERS = (
    *("GTiff", "JP2OpenJPEG", "JPEG", "PNG", "BMP", "HFA", "ENVI", "ERS", "GPKG"),
    *("MBTiles", "WEBP", "AAIGrid", "EHdr", "VRT"),
)
SERVICE_MARKS = (  # what descriptions of services and lists of addresses begin with
    *(
        b"<GDAL_WMS",
        b"<GDAL_WMTS",
        b"<WCS_GDAL",
        b"<WMS_Capabilities",
        b"<Capabilities",
    ),
    *(b"<TileMap", b"<GDALTileIndexDataset", b"<MRF_META", b'"stac_version"'),
)
HEADER_BYTES = 4096  # in which a file says that it is a virtual one
# As GDAL does, what the XML says is compared in lower case.
SOURCE_TAGS = ("sourcefilename", "sourcedataset", "geolocationdataset", "lutfilename")
ARCHIVE_PATH = re.compile(r"(/vsi(?:zip|tar|gzip|7z|rar)/)(.+)")


def gdal_name(path: str | PathLike) -> tuple[str, list[str]]:
    """Return what GDAL calls a raster, and the formats that it may be of.

    `Path` makes one slash of two, which addresses have: they are put back.

    Args:
        path: A file, a URL or a `/vsi` path.

    Returns:
        The name, and names of drivers. What is no file of this machine may be a virtual
        raster only where remote sources are allowed, for nobody has read its body.

    Example:
        >>> gdal_name(Path("https://example.org/town.tif"))[0]
        '/vsicurl/https://example.org/town.tif'
    """
    name = re.sub(r"\b(https?|ftp):/(?!/)", r"\1://", str(path))
    name = re.sub(r"^(?=(https?|ftp)://)", "/vsicurl/", name)
    name = re.sub(r"^(s3|gs|az|oss):/+", r"/vsi\1/", name)
    archive = ARCHIVE_PATH.fullmatch(name)
    if archive and any(above.is_file() for above in Path(f"/{archive[2]}").parents):
        name = f"{archive[1]}/{archive[2]}"
    if Path(path).exists() or os.environ.get(ALLOW_REMOTE) == "1":
        return name, list(DRIVERS)
    return name, [driver for driver in DRIVERS if driver != "VRT"]


def local_sources(path: str | PathLike) -> list[Path]:
    """Return the files that a virtual raster is made of, and those they are made of.

    Args:
        path: A raster of any format; one that is not virtual is made of no others.

    Raises:
        ValueError: If it, or one of them, is a list of addresses (XML or JSON that is
            no virtual raster), names what is no local file and that is not allowed,
            reads the bytes of any file as pixels, runs Python, or is damaged.
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
        head = file.read(HEADER_BYTES)
    if b"<vrtdataset" not in head.lower():
        if any(service.lower() in head.lower() for service in SERVICE_MARKS):
            raise InputError(f"not a raster, but text that names some: {path}")
        return
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise DamagedFileError(f"damaged raster: {path} ({error})") from error
    for element in root.iter():
        said = {key.lower(): value for key, value in element.attrib.items()}
        tag, text = element.tag.lower(), (element.text or "").strip()
        if said.get("subclass", "").lower() == "vrtrawrasterband":
            raise InputError(
                "a virtual raster must be made of rasters, not of the bytes of any "
                f"file (VRTRawRasterBand): {path}"
            )
        if tag == "pixelfunctionlanguage" and text.lower() == "python":
            raise InputError(f"a virtual raster must not run Python: {path}")
        if tag not in SOURCE_TAGS or not text:
            continue
        relative = said.get("relativetovrt") == "1"
        source = path.parent / text if relative else Path(text)
        if source.is_file():
            yield source
        elif os.environ.get(ALLOW_REMOTE) != "1":
            raise InputError(
                "a raster must name local files only, which are there, "
                f"got {text[:60]}; --allow-remote allows others: {path}"
            )
