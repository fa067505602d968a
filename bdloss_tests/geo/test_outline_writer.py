"""Outlines that come in parts are written, and sorted, as if they had come at once."""

import numpy as np
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS

from bdloss.geo import outline_spool, outline_writer
from bdloss.geo.geobox import GeoBox
from bdloss.geo.ogr import pyogrio
from bdloss.geo.outline_spool import OutlineSpool
from bdloss.geo.outline_writer import FORMATS, create_outlines, write_outlines
from bdloss.geo.vector import read_attribute, read_extent, read_table

UTM = CRS.from_epsg(32645)
GROUND = GeoBox(400, 300, Affine(0.5, 0, 353000, 0, -0.5, 3057000), UTM)


def houses(number, seed=0):
    random = np.random.default_rng(seed)
    xy = random.integers((353000, 3056850), (353100, 3056950), (number, 2))
    sides = random.integers(2, 9, (number, 2))
    holed = shapely.box(353100, 3056900, 353120, 3056920).difference(
        shapely.box(353105, 3056905, 353110, 3056910)
    )
    return np.append(shapely.box(*xy.T, *(xy + sides).T), holed)


@pytest.mark.parametrize("suffix", FORMATS)
def test_parts_make_the_file_that_the_whole_makes(tmp_path, suffix):
    roofs = houses(20)
    facts = {"id": np.arange(21), "class": np.array(["shed", "hall", "silo"] * 7)}
    write_outlines(tmp_path / f"whole{suffix}", roofs, UTM, {"way": 1}, **facts)
    with create_outlines(tmp_path / f"parts{suffix}", UTM, {"way": 1}) as writer:
        for part in (slice(0, 0), slice(0, 5), slice(5, 6), slice(6, 21)):
            some = {name: column[part] for name, column in facts.items()}
            writer.write(roofs[part], **some)
    assert writer.count == 21
    tables = [
        read_table(tmp_path / f"{name}{suffix}", UTM, list(facts))
        for name in ("whole", "parts")
    ]
    assert tables[0][0] == tables[1][0]
    for name in facts:
        assert tables[1][1][name].tolist() == tables[0][1][name].tolist()
    extents = [read_extent(tmp_path / f"{name}{suffix}") for name in ("whole", "parts")]
    assert extents[0][1] == pytest.approx(extents[1][1])
    assert len(list(tmp_path.iterdir())) == 2  # nothing is left beside them


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_fails_midway_leaves_nothing(tmp_path, suffix):
    with (
        pytest.raises(ValueError, match="midway"),
        create_outlines(tmp_path / f"half{suffix}", UTM) as writer,
    ):
        writer.write(houses(3), id=np.arange(4))
        raise ValueError("midway")
    assert list(tmp_path.iterdir()) == []


def test_very_many_outlines_have_no_index_in_flatgeobuf(tmp_path, monkeypatch):
    monkeypatch.setattr(outline_writer, "LARGEST_INDEX", 21)
    for number, indexed in ((20, True), (21, False)):
        path = tmp_path / f"{number}.fgb"
        write_outlines(path, houses(number), UTM, id=np.arange(number + 1))
        info = pyogrio.read_info(path)
        assert info["capabilities"]["fast_spatial_filter"] == indexed
        assert len(read_attribute(path, UTM, None, "id")[0]) == number + 1


def spooled(folder, ground, parts):
    folder.mkdir()
    spool = OutlineSpool(folder, ground, number=int)
    for polygons, numbers in parts:
        spool.add(polygons, number=numbers)
    polygons, columns = zip(*spool.sorted(), strict=True)
    numbers = np.concatenate([each["number"] for each in columns])
    return np.concatenate(polygons), numbers, len(polygons)


def test_a_spool_sorts_as_if_all_were_in_memory(tmp_path, monkeypatch):
    roofs = houses(200)
    roofs = np.append(roofs, shapely.box(0, 0, 353001, 3058000))  # beyond the ground
    number = np.arange(len(roofs))
    whole, order, files = spooled(tmp_path / "whole", GROUND, [(roofs, number)])
    assert files == 1
    tops = -shapely.bounds(whole)[:, 3]
    assert (np.diff(tops) >= 0).all()
    monkeypatch.setattr(outline_spool, "PIXELS_IN_MEMORY", 300 * 30)
    shuffled = np.random.default_rng(1).permutation(len(roofs))
    parts = [(roofs[some], number[some]) for some in np.split(shuffled, [5, 5, 90])]
    again, its_order, files = spooled(tmp_path / "parts", GROUND, parts)
    assert files > 5
    assert its_order.tolist() == order.tolist()
    assert again.tolist() == whole.tolist()


def test_a_spool_of_nothing_knows_its_columns(tmp_path):
    spool = OutlineSpool(tmp_path, GROUND, number=int, share=float)
    ((polygons, columns),) = spool.sorted()
    assert len(polygons) == 0
    assert {name: column.dtype.kind for name, column in columns.items()} == {
        "number": "i",
        "share": "f",
    }
