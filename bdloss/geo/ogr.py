"""GDAL's vector library, loaded so that it finds its own SQLite.

GeoPackages are SQLite files whose spatial index needs the module `rtree`. TensorFlow
brings an SQLite without it, and what is loaded first would serve both: GDAL could then
read no part of a GeoPackage, and write none with an index. `RTLD_DEEPBIND` makes it
look at what it brings itself first. So all of bdloss takes pyogrio from here.
"""

import glob
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

_flags = sys.getdlopenflags() if hasattr(sys, "getdlopenflags") else 0
if hasattr(os, "RTLD_DEEPBIND"):  # of Linux; elsewhere libraries keep to their own
    sys.setdlopenflags(_flags | os.RTLD_DEEPBIND)
try:
    import pyogrio
    import pyogrio.raw
finally:
    if hasattr(os, "RTLD_DEEPBIND"):
        sys.setdlopenflags(_flags)

__all__ = ["named_for_ogr", "pyogrio"]
# Pyogrio reads names as addresses, and cuts them there.
ADDRESS_MARKS = re.compile(r"[;?\t\r\n]")


@contextmanager
def named_for_ogr(path: str | PathLike) -> Iterator[Path]:
    """Give a file a name that pyogrio takes whole, while it is read or written.

    Args:
        path: A file of outlines; it need not exist.

    Yields:
        The path, or a link to it where its name has what marks parts of an address.
        Files beside it (of a shapefile) have links beside that.
    """
    path = Path(path)
    if not ADDRESS_MARKS.search(str(path)):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / f"outlines{path.suffix}"
        beside = path.parent.glob(f"{glob.escape(path.stem)}.*")
        for file in {path, *beside}:
            link.with_suffix(file.suffix).symlink_to(file.resolve())
        yield link
