"""GDAL's vector library, loaded so that it finds its own SQLite.

GeoPackages are SQLite files whose spatial index needs the module `rtree`. TensorFlow
brings an SQLite without it, and what is loaded first would serve both: GDAL could then
read no part of a GeoPackage, and write none with an index. `RTLD_DEEPBIND` makes it
look at what it brings itself first. So all of bdloss takes pyogrio from here.
"""

import os
import sys

_flags = sys.getdlopenflags() if hasattr(sys, "getdlopenflags") else 0
if hasattr(os, "RTLD_DEEPBIND"):  # of Linux; elsewhere libraries keep to their own
    sys.setdlopenflags(_flags | os.RTLD_DEEPBIND)
try:
    import pyogrio
    import pyogrio.raw
finally:
    if hasattr(os, "RTLD_DEEPBIND"):
        sys.setdlopenflags(_flags)

__all__ = ["pyogrio"]
