import json
import sys
import warnings

import numpy as np
import pyogrio
import pytest
import shapely
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.transform import array_bounds, from_origin
from rasterio.warp import transform

from bdloss.geo.geobox import GeoBox
from bdloss.geo.outline_writer import FORMATS, check_format, write_outlines
from bdloss.geo.vector import (
    count_outlines,
    rasterise,
    read_extent,
    read_outlines,
)
from bdloss.geo.windows import Window
from bdloss_tests.scenes import full_disk

UTM = CRS.from_epsg(32645)
HEIGHT, WIDTH = 60, 90
GRID = GeoBox(HEIGHT, WIDTH, from_origin(353875, 3057565, 0.3, 0.3), UTM)
BOUNDS = array_bounds(HEIGHT, WIDTH, GRID.transform)
PIXELS = GeoBox(HEIGHT, WIDTH, Affine.identity(), None)


def on_ground(*polygons):
    """Bring polygons from pixels of `GRID` to metres."""
    return [
        shapely.transform(polygon, lambda xy: xy * (0.3, -0.3) + (353875, 3057565))
        for polygon in polygons
    ]


def write(path, polygons, crs):
    """Write polygons whose coordinates are UTM in another CRS, with pyogrio alone."""
    moved = shapely.transform(
        np.array(polygons, dtype=object),
        lambda xy: np.stack(transform(UTM, crs, *xy.T), axis=1) if crs else xy,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # no CRS is what one test is about
        pyogrio.raw.write(
            path,
            shapely.to_wkb(moved),
            [],
            [],
            geometry_type="Unknown",
            crs=crs.to_wkt() if crs else None,
        )
    return path


# Edges half a pixel from every centre, so that an error of half a pixel shows.
HOUSES = [shapely.box(10, 5, 31, 22), shapely.box(40, 30, 77, 58)]
HOUSES[1] = HOUSES[1].difference(shapely.box(50, 40, 60, 47))
MASK = np.zeros((HEIGHT, WIDTH), np.uint8)
MASK[5:22, 10:31] = 1
MASK[30:58, 40:77] = 1
MASK[40:47, 50:60] = 0


@pytest.mark.parametrize(
    ("suffix", "epsg"),
    [
        (".geojson", 4326),
        (".gpkg", 4326),
        (".shp", 3857),
        (".fgb", 32644),  # the next zone
        (".gpkg", 32645),  # the raster's own
    ],
)
def test_outlines_in_any_crs_land_on_their_pixels(tmp_path, suffix, epsg):
    path = write(tmp_path / f"a{suffix}", on_ground(*HOUSES), CRS.from_epsg(epsg))
    mask = rasterise(read_outlines(path, UTM, BOUNDS), GRID)
    np.testing.assert_array_equal(mask, MASK)


@pytest.mark.parametrize(
    ("shift", "moved"), [(0.4, 0), (0.6, 1), (-0.4, 0), (-0.6, -1)]
)
def test_a_pixel_belongs_to_the_outline_that_holds_its_centre(shift, moved):
    house = shapely.box(10 + shift, 5, 31 + shift, 22)
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[5:22, 10 + moved : 31 + moved] = 1
    np.testing.assert_array_equal(rasterise([house], PIXELS), expected)


def test_a_window_is_that_part_of_the_whole_mask():
    window = Window(15, 20, 31, 44)
    mask = rasterise(on_ground(*HOUSES), GRID, window)
    np.testing.assert_array_equal(mask, MASK[window.slices])


def test_no_outlines_make_an_empty_mask():
    assert rasterise([], GRID).shape == (HEIGHT, WIDTH)
    assert not rasterise([], GRID).any()


def test_parts_that_overlap_are_building(tmp_path):
    parts = shapely.multipolygons([HOUSES[0], shapely.box(20, 10, 50, 18)])
    path = write(tmp_path / "a.gpkg", on_ground(parts), UTM)
    outlines = read_outlines(path, UTM)
    assert len(outlines) == 2
    assert rasterise(outlines, GRID)[12, 25] == 1


def test_only_outlines_within_the_bounds_are_read(tmp_path):
    path = write(tmp_path / "a.gpkg", on_ground(*HOUSES), CRS.from_epsg(3857))
    north = array_bounds(25, WIDTH, GRID.transform)
    assert len(read_outlines(path, UTM)) == 2
    (house,) = read_outlines(path, UTM, north)
    assert house.hausdorff_distance(on_ground(HOUSES[0])[0]) < 0.001  # metres


def test_only_the_parts_within_the_bounds_are_read(tmp_path):
    parts = shapely.multipolygons([HOUSES[0], HOUSES[1]])
    path = write(tmp_path / "a.gpkg", on_ground(parts), UTM)
    north = array_bounds(25, WIDTH, GRID.transform)
    assert len(read_outlines(path, UTM, north)) == 1


def test_a_site_without_buildings_among_the_outlines_is_empty(tmp_path):
    path = write(tmp_path / "a.gpkg", on_ground(*HOUSES), UTM)
    left, _, _, top = BOUNDS
    between = (left + 9.9, top - 8.4, left + 11.4, top - 7.2)
    assert read_outlines(path, UTM, between) == []


def test_points_and_lines_among_outlines_are_left_out(tmp_path):
    line = shapely.linestrings([(1, 1), (20, 20)])
    mixed = on_ground(HOUSES[0], shapely.points(50, 10), line)
    path = write(tmp_path / "a.gpkg", mixed, UTM)
    assert [shape.geom_type for shape in read_outlines(path, UTM)] == ["Polygon"]


LOCAL = CRS.from_wkt(
    'LOCAL_CS["site",UNIT["metre",1],AXIS["East",EAST],AXIS["North",NORTH]]'
)


def as_geojson(path, *geometries):
    features = [
        {"type": "Feature", "properties": {}, "geometry": geometry}
        for geometry in geometries
    ]
    text = json.dumps({"type": "FeatureCollection", "features": features})
    path.write_text(text)
    return path


def test_collections_in_collections_keep_their_buildings(tmp_path):
    inner = shapely.GeometryCollection([shapely.MultiPolygon(HOUSES), HOUSES[0]])
    path = write(tmp_path / "a.gpkg", on_ground(inner), UTM)
    again = read_outlines(path, UTM)
    assert sorted(round(p.area, 2) for p in again) == sorted(
        round(p.area, 2) for p in on_ground(*HOUSES, HOUSES[0])
    )


def test_damaged_files_of_outlines_are_named(tmp_path):
    whole = write(tmp_path / "a.fgb", on_ground(*HOUSES), UTM).read_bytes()
    cut = tmp_path / "cut.fgb"
    cut.write_bytes(whole[: len(whole) * 2 // 3])
    text = as_geojson(
        tmp_path / "text.geojson",
        {"type": "Polygon", "coordinates": [[["a", 0], [1, 0], [1, 1], ["a", 0]]]},
    )
    for path, crs in ((cut, UTM), (text, CRS.from_epsg(4326))):
        with pytest.raises(ValueError, match=f"outlines.*: .*{path.name}") as refused:
            read_outlines(path, crs)
        assert "\n" not in str(refused.value)


def test_outlines_have_finite_coordinates(tmp_path):
    far = shapely.Polygon([(0, 0), (np.inf, 0), (1, 1)])
    path = tmp_path / "a.gpkg"
    wkb = shapely.to_wkb(np.array([far]))
    pyogrio.raw.write(
        path, wkb, [], [], driver="GPKG", geometry_type="Polygon", crs="EPSG:32645"
    )
    with pytest.raises(ValueError, match="must have finite coordinates"):
        read_outlines(path, UTM)


def test_outlines_of_a_site_lie_on_its_own_raster_only(tmp_path):
    path = tmp_path / "a.gpkg"
    wkb = shapely.to_wkb(np.array(on_ground(*HOUSES)))
    crs = LOCAL.to_wkt()
    pyogrio.raw.write(path, wkb, [], [], geometry_type="Polygon", crs=crs)
    assert len(read_outlines(path, LOCAL, BOUNDS)) == len(HOUSES)
    with pytest.raises(ValueError, match="must have CRSs that can be related"):
        read_outlines(path, UTM, BOUNDS)


def test_outlines_must_overlap_the_raster(tmp_path):
    path = write(tmp_path / "a.gpkg", on_ground(*HOUSES), UTM)
    with pytest.raises(ValueError, match=f"^outlines must overlap the raster.*{path}$"):
        read_outlines(path, UTM, (0, 0, 100, 100))


@pytest.mark.parametrize(("crs", "wanted"), [(None, UTM), (UTM, None)])
def test_one_crs_alone_is_an_error(tmp_path, crs, wanted):
    path = write(tmp_path / "a.gpkg", on_ground(*HOUSES), crs)
    with pytest.raises(ValueError, match=f"both have a CRS or both have none.*{path}$"):
        read_outlines(path, wanted)


def test_without_any_crs_outlines_are_in_pixels(tmp_path):
    path = write(tmp_path / "a.gpkg", HOUSES, None)
    np.testing.assert_array_equal(rasterise(read_outlines(path, None), PIXELS), MASK)


def test_a_file_must_be_there_and_hold_one_layer_of_polygons(tmp_path):
    text = tmp_path / "a.gpkg"
    text.write_text("no outlines")
    points = write(tmp_path / "b.gpkg", [shapely.points(0, 0)], None)
    two = write(tmp_path / "c.gpkg", HOUSES, UTM)
    pyogrio.raw.write(
        two,
        shapely.to_wkb(HOUSES),
        [],
        [],
        layer="roads",
        geometry_type="Polygon",
        crs="EPSG:32645",
        append=True,
    )
    with pytest.raises(FileNotFoundError, match=f"^no such file: {tmp_path}/d.gpkg$"):
        read_outlines(tmp_path / "d.gpkg", UTM)
    with pytest.raises(ValueError, match=f"^not a file of outlines: {text}$"):
        read_outlines(text, UTM)
    with pytest.raises(ValueError, match=f"^outlines must be polygons, .*: {points}$"):
        read_outlines(points, None)
    with pytest.raises(ValueError, match=f"one layer of polygons, .*'roads'.*: {two}$"):
        read_outlines(two, UTM)


def read_columns(path):
    """Return the columns of a file of outlines by their names."""
    if path.suffix == ".parquet":
        table = pytest.importorskip("pyarrow.parquet").read_table(path)
        return {name: table[name].to_pylist() for name in table.column_names}
    info, _, _, columns = pyogrio.raw.read(path)
    return dict(zip(info["fields"], map(list, columns), strict=True))


@pytest.mark.parametrize("suffix", FORMATS)
def test_written_outlines_read_the_same(tmp_path, suffix):
    path = tmp_path / f"roofs{suffix}"
    path.write_text("old")
    written = on_ground(*HOUSES)
    write_outlines(path, written, UTM, storeys=np.array([2, 5]))
    read = sorted(read_outlines(path, UTM), key=lambda polygon: polygon.area)
    for before, after in zip(written, read, strict=True):
        assert before.hausdorff_distance(after) < 0.02  # metres
    assert sorted(read_columns(path)["storeys"]) == [2, 5]
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_geojson_is_in_degrees(tmp_path):
    write_outlines(tmp_path / "a.geojson", on_ground(HOUSES[0]), UTM)
    content = json.loads((tmp_path / "a.geojson").read_text())
    lon, lat = content["features"][0]["geometry"]["coordinates"][0][0]
    assert (lon, lat) == pytest.approx((85.519, 27.634), abs=0.001)
    with pytest.raises(ValueError, match="GeoJSON is in degrees"):
        write_outlines(tmp_path / "b.geojson", HOUSES, None)


@pytest.mark.parametrize("suffix", FORMATS)
def test_no_outlines_are_a_layer_without_features(tmp_path, suffix):
    write_outlines(tmp_path / f"a{suffix}", [], UTM, area=np.array([]))
    assert read_outlines(tmp_path / f"a{suffix}", UTM, BOUNDS) == []


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("size", [1_000, 100_000])
def test_outlines_that_do_not_fit_on_the_disk_are_an_error(tmp_path, suffix, size):
    corners = np.random.default_rng(3).uniform(0, 500, (900, 2))
    houses = on_ground(*(shapely.Point(corner).buffer(9) for corner in corners))
    path = tmp_path / f"a{suffix}"
    with (
        full_disk(size),
        pytest.raises(OSError, match=rf"cannot write .*a{suffix}: is the disk full\?$"),
    ):
        write_outlines(path, houses, UTM)
    assert not list(tmp_path.iterdir())
    write_outlines(path, houses, UTM)
    assert count_outlines(path) == 900


def test_outlines_that_nearly_fit_on_the_disk_are_an_error(tmp_path):
    """FlatGeobuf is then written without a word, and cannot be read."""
    houses = on_ground(*(shapely.box(col, 3, col + 9, 40) for col in range(0, 900, 10)))
    path = tmp_path / "a.fgb"
    write_outlines(path, houses, UTM)
    size = path.stat().st_size
    path.unlink()
    with full_disk(size - 1), pytest.raises(OSError, match="is the disk full"):
        write_outlines(path, houses, UTM)
    assert not list(tmp_path.iterdir())


def test_outlines_that_cannot_be_written_leave_nothing(tmp_path):
    with pytest.raises(
        ValueError, match=r"to \.gpkg, \.geojson, \.fgb, \.parquet, got .*a\.shp$"
    ):
        write_outlines(tmp_path / "a.shp", HOUSES, None)
    for suffix in FORMATS:
        with pytest.raises(ValueError):
            write_outlines(tmp_path / f"a{suffix}", HOUSES, UTM, storeys=np.array([1]))
    assert list(tmp_path.iterdir()) == []


def read_metadata(path):
    """Return what a file of outlines says of all of them, read by other means."""
    if path.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        return json.loads(parquet.read_metadata(path).metadata[b"bdloss"])
    if path.suffix == ".geojson":
        return json.loads(json.loads(path.read_text())["description"])
    return pyogrio.read_info(path)["layer_metadata"]


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("shapes", [HOUSES, []])
def test_each_format_says_how_its_outlines_were_made(tmp_path, suffix, shapes):
    path = tmp_path / f"a{suffix}"
    made = {"model": 'büro "2"', "threshold": 0.5, "cog": False}
    write_outlines(path, on_ground(*shapes), UTM, made)
    known = {key: str(value) for key, value in made.items()}
    assert read_metadata(path) == known


def test_geoparquet_is_as_its_specification_says(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    write_outlines(path, on_ground(*HOUSES), UTM, storeys=np.array([2, 5]))
    geo = json.loads(parquet.read_metadata(path).metadata[b"geo"])
    column = geo["columns"][geo["primary_column"]]
    assert geo["version"] == "1.1.0"
    assert (column["encoding"], column["geometry_types"]) == ("WKB", ["Polygon"])
    assert column["crs"]["id"] == {"authority": "EPSG", "code": 32645}
    bounds = shapely.total_bounds(on_ground(*HOUSES))
    assert column["bbox"] == pytest.approx(bounds.tolist())
    write_outlines(path, HOUSES, None)
    geo = json.loads(parquet.read_metadata(path).metadata[b"geo"])
    assert geo["columns"]["geometry"]["crs"] is None


def test_geoparquet_and_geopandas_read_each_other(tmp_path):
    geopandas = pytest.importorskip("geopandas")
    path = tmp_path / "a.parquet"
    write_outlines(path, on_ground(*HOUSES), UTM, storeys=np.array([2, 5]))
    table = geopandas.read_parquet(path)
    assert table.crs.to_epsg() == 32645
    assert table.storeys.tolist() == [2, 5]
    assert table.geometry.tolist() == on_ground(*HOUSES)
    table.to_crs(4326).set_geometry("geometry").to_parquet(path)
    mask = rasterise(read_outlines(path, UTM, BOUNDS), GRID)
    np.testing.assert_array_equal(mask, MASK)


def write_parquet(path, geo, column="geometry"):
    """Write two houses and a row without any, with metadata that may be odd."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    wkb = [*shapely.to_wkb(np.array(HOUSES, object)), None]
    known = {"geo": geo if isinstance(geo, str) else json.dumps(geo)}
    table = pyarrow.table({column: wkb}).replace_schema_metadata(known)
    parquet.write_table(table, path)
    return path


def geo_of(**column):
    return {"primary_column": "geometry", "columns": {"geometry": column}}


def test_geoparquet_of_others(tmp_path):
    path = tmp_path / "a.parquet"
    write_parquet(path, geo_of(encoding="WKB"))
    crs, bounds = read_extent(path)
    assert crs == CRS.from_user_input("OGC:CRS84")
    assert bounds == pytest.approx((10, 5, 77, 58))
    write_parquet(path, geo_of(encoding="WKB", crs=None))
    assert read_outlines(path, None) == HOUSES
    write_parquet(path, geo_of(encoding="WKB", crs=UTM.to_wkt()))
    assert read_outlines(path, UTM) == HOUSES
    assert count_outlines(path) == 3


@pytest.mark.parametrize(
    ("geo", "says"),
    [
        (geo_of(encoding="polygon"), "GeoParquet is read in WKB, got polygon: .*a.par"),
        (geo_of(encoding="WKB", crs={"type": "x"}), "damaged GeoParquet, or none: .*a"),
        (geo_of(), "damaged GeoParquet, or none: .*a.parquet"),
        ({"primary_column": "g"}, "damaged GeoParquet, or none: .*a.parquet"),
        ([], "damaged GeoParquet, or none: .*a.parquet"),
        ("{", "damaged GeoParquet, or none: .*a.parquet"),
    ],
)
def test_what_is_no_geoparquet_is_one_line(tmp_path, capfd, geo, says):
    path = write_parquet(tmp_path / "a.parquet", geo)
    with pytest.raises(ValueError, match=says) as refused:
        read_outlines(path, UTM)
    assert "\n" not in str(refused.value)
    assert capfd.readouterr().err == ""
    (tmp_path / "b.parquet").write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="damaged GeoParquet, or none"):
        read_outlines(tmp_path / "b.parquet", UTM)
    with pytest.raises(FileNotFoundError, match=r"no such file: .*c\.parquet"):
        read_outlines(tmp_path / "c.parquet", UTM)


def test_geoparquet_needs_its_extra(tmp_path, monkeypatch):
    path = write_parquet(tmp_path / "a.parquet", geo_of(encoding="WKB"))
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    for work in (lambda: read_outlines(path, UTM), lambda: check_format(path, UTM)):
        with pytest.raises(
            ValueError, match=r"pyarrow: pip install 'bdloss\[parquet\]'"
        ):
            work()
