"""GeoPackages in processes that have loaded TensorFlow, as all commands have."""

import sqlite3
import subprocess
import sys

import pytest

PROGRAM = """
import os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
{first}
import shapely
from rasterio.crs import CRS
from bdloss.geo.outline_writer import write_outlines
from bdloss.geo.vector import read_outlines
import keras
utm = CRS.from_epsg(32645)
houses = [shapely.box(20 * i, 0, 20 * i + 10, 10) for i in range(5)]
write_outlines("houses.gpkg", houses, utm)
print(len(read_outlines("houses.gpkg", utm, (0, 0, 35, 10))))
"""


@pytest.mark.parametrize("first", ["import keras", "import tensorflow", ""])
def test_geopackages_have_and_use_an_index_whatever_is_loaded_first(first, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(first=first)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "2\n"
    with sqlite3.connect(tmp_path / "houses.gpkg") as table:
        names = [name for (name,) in table.execute("select name from sqlite_master")]
    assert "rtree_houses_geom" in names
