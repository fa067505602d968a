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
WEB = r"((?:/vsicurl/)?(?:https?|ftp):/)/?"  # an address, whose slashes `Path` halves
WEB_ADDRESS = re.compile(WEB + r"([^?]*)(?:\?(.*))?", re.DOTALL)
WEB_PATH = re.compile(WEB + r"(.*?)(?:(?<=/)\?([^/]*)/([^/]*))?", re.DOTALL)
NOTHING = "%2F"  # stands between two slashes, so that they stay two
ARCHIVE_PATH = re.compile(r"(/vsi(?:zip|tar|gzip|7z|rar)/)(.+)")


def path_of(raster: str | PathLike) -> Path:
    """Return a raster as a path whose name is that of the raster.

    `Path` makes one slash of two, and takes what follows the last one for the name. So
    an address is written with something between two slashes, and its query before the
    name, with `%2F` for slashes, which servers read as such. `gdal_name` undoes it.

    Args:
        raster: A file, a URL or a `/vsi` path. What is a path already stays as it is.

    Example:
        >>> path = path_of("https://example.org/a//town.tif?key=x/y.z")
        >>> path.name
        'town.tif'
        >>> gdal_name(path)[0]
        '/vsicurl/https://example.org/a//town.tif?key=x%2Fy.z'
    """
    address = WEB_ADDRESS.fullmatch(str(raster))
    if address is None or isinstance(raster, Path):
        return Path(raster)
    start, place, query = address.groups()
    *parts, name = (part or NOTHING for part in place.split("/"))
    if query is not None:
        parts.append(f"?{query.replace('/', '%2F')}")
    return Path(start, *parts, name)


def gdal_name(path: str | PathLike) -> tuple[str, list[str]]:
    """Return what GDAL calls a raster, and the formats that it may be of.

    Args:
        path: A file, a URL or a `/vsi` path, or what `path_of` makes of them.

    Returns:
        The name, and names of drivers. What is no file of this machine may be a virtual
        raster only where remote sources are allowed, for nobody has read its body.

    Example:
        >>> gdal_name(Path("https://example.org/town.tif"))[0]
        '/vsicurl/https://example.org/town.tif'
    """
    name = str(path)
    if address := WEB_PATH.fullmatch(name):
        start, place, query, last = address.groups()
        name = f"/vsicurl/{start.removeprefix('/vsicurl/')}/"
        parts = (place + (last or "")).split("/")
        name += "/".join("" if part == NOTHING else part for part in parts)
        name += "" if query is None else f"?{query}"
    name = re.sub(r"\b(https?|ftp):/(?!/)", r"\1://", name)  # in an archive's path
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
