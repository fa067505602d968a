import json
import warnings

import numpy as np
import pyogrio
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.transform import from_origin
from rasterio.warp import transform

from bdloss.errors import NoOverlapError
from bdloss.geo.area import MARGIN, MARGIN_PIXELS, Area, read_area
from bdloss.geo.geobox import GeoBox
from bdloss.geo.windows import Window

UTM = CRS.from_epsg(32645)
DEGREES = CRS.from_epsg(4326)
GROUND = GeoBox(60, 90, from_origin(353875, 3057565, 0.3, 0.3), UTM)
PIXELS = GeoBox(60, 90, Affine.identity(), None)
COLUMNS, ROWS = np.meshgrid(np.arange(90) + 0.5, np.arange(60) + 0.5)
# None of its edges comes near to the centre of a pixel.
SHAPE = shapely.Polygon([(5.2, 3.1), (70.3, 8.2), (51.7, 44.4), (12.1, 31.9)])


def on_ground(shape):
    return shapely.transform(shape, lambda xy: xy * (0.3, -0.3) + (353875, 3057565))


def write(path, shapes, crs=UTM):
    """Write shapes in pixels of `GROUND` in a CRS, with pyogrio alone."""
    moved = shapely.transform(
        on_ground(np.array(shapes, object)),
        lambda xy: np.stack(transform(UTM, crs or UTM, *xy.T), axis=1),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # no CRS is what one test is about
        pyogrio.raw.write(
            *(path, shapely.to_wkb(moved), [], []),
            geometry_type="Unknown",
            crs=crs.to_wkt() if crs else None,
        )
    return path


def corners(left, bottom, right, top):
    """Return the four numbers of a box whose corners are columns and rows."""
    west, north = on_ground(shapely.Point(left, top)).coords[0]
    east, south = on_ground(shapely.Point(right, bottom)).coords[0]
    return west, south, east, north


@pytest.mark.parametrize(
    ("suffix", "crs"),
    [(".gpkg", UTM), (".gpkg", DEGREES), (".geojson", DEGREES), (".shp", UTM)],
)
def test_a_pixel_belongs_to_the_area_that_holds_its_centre(tmp_path, suffix, crs):
    area = read_area(write(tmp_path / f"a{suffix}", [SHAPE], crs), GROUND)
    inside = shapely.contains_xy(SHAPE, COLUMNS, ROWS)
    np.testing.assert_array_equal(area.mask(Window(0, 0, 60, 90)), inside)
    window = Window(7, 30, 31, 40)
    np.testing.assert_array_equal(area.mask(window), inside[window.slices])
    top, left, height, width = area.window
    assert area.window == (3, 5, 42, 66)
    assert not area.mask(Window(0, 0, top, 90)).any()
    assert area.mask(Window(top, left, height, width)).sum() == inside.sum()


def test_four_numbers_are_a_box_in_the_crs_of_the_raster():
    area = read_area(corners(12, 50, 33, 20), GROUND)
    assert area.window == Window(20, 12, 30, 21)
    assert area.mask(area.window).all()
    assert area.mask(Window(0, 0, 60, 90)).sum() == 30 * 21


def test_the_edges_of_a_box_bend_in_another_crs():
    wide = GeoBox(900, 1500, from_origin(300000, 5000000, 40, 40), CRS.from_epsg(32632))
    box = (6.6, 44.9, 7.2, 45.05)
    area = read_area(box, wide, crs="EPSG:4326")
    columns, rows = np.meshgrid(np.arange(1500) + 0.5, np.arange(900) + 0.5)
    x, y = wide.transform @ (columns.ravel(), rows.ravel())
    lon, lat = np.array(transform(wide.crs, DEGREES, x, y))
    expected = (lon > box[0]) & (lon < box[2]) & (lat > box[1]) & (lat < box[3])
    mask = area.mask(Window(0, 0, 900, 1500))
    np.testing.assert_array_equal(mask, expected.reshape(900, 1500))
    assert area.window.height > mask[:, 800].sum() > 10


def test_polygons_of_a_file_are_one_area(tmp_path):
    shapes = [shapely.box(5, 5, 20, 20), shapely.box(15, 10, 30, 25)]
    shapes += [shapely.box(60, 40, 70, 50), shapely.box(500, 500, 600, 600)]
    area = read_area(write(tmp_path / "a.gpkg", shapes), GROUND)
    assert area.mask(Window(0, 0, 60, 90)).sum() == 2 * 225 - 50 + 100
    assert area.window == Window(5, 5, 45, 65)
    assert not area.mask(Window(26, 0, 14, 90)).any()


def test_outside_of_the_raster_there_is_no_area(tmp_path):
    area = read_area(write(tmp_path / "a.gpkg", [shapely.box(-50, -9, 30, 99)]), GROUND)
    assert area.window == Window(0, 0, 60, 30)


def test_an_area_has_a_digest_of_its_own(tmp_path):
    def tag(shape, edge="cut", crs=UTM):
        path = tmp_path / "a.gpkg"
        path.unlink(missing_ok=True)
        return read_area(write(path, [shape], crs), GROUND, edge=edge).tag

    first = tag(SHAPE)
    turned = shapely.Polygon(np.roll(shapely.get_coordinates(SHAPE)[:-1], 2, axis=0))
    assert first == tag(turned)
    others = {tag(shapely.transform(SHAPE, lambda xy: xy + 0.01)), tag(SHAPE, "whole")}
    assert len(others | {first}) == 3


def test_an_area_that_was_kept_comes_back():
    area = read_area(corners(12, 50, 33, 20), GROUND, edge="whole")
    again = Area.restore(GROUND, area.wkb, area.tag)
    assert (again.window, again.margin, again.tag) == (
        *(area.window, area.margin, area.tag),
    )
    for damaged in (b"", area.wkb[:-9], area.wkb[:-1] + b"9"):
        with pytest.raises(ValueError, match="damaged area of interest"):
            Area.restore(GROUND, damaged, area.tag)


def test_buildings_are_cut_at_the_edge():
    area = Area(SHAPE, 60, 90)
    inside, across = shapely.box(20, 15, 30, 25), shapely.box(0, 20, 30, 40)
    away = shapely.box(80, 50, 88, 58)
    horseshoe = shapely.box(55, 10, 75, 22) - shapely.box(50, 14, 72, 18)
    polygons, indexes = area.keep(np.array([inside, away, across, horseshoe]))
    assert indexes.tolist() == [0, 2, 3, 3]
    assert polygons[0] == inside
    assert polygons[1].equals(across & SHAPE)
    assert shapely.union_all(polygons[2:]).equals(horseshoe & SHAPE)
    assert [polygon.geom_type for polygon in polygons] == ["Polygon"] * 4


def test_what_only_touches_the_edge_is_not_of_the_area():
    area = Area(shapely.box(10, 10, 30, 30), 60, 90)
    touching = [shapely.box(30, 15, 40, 20), shapely.box(0, 0, 10, 10)]
    polygons, indexes = area.keep(np.array(touching))
    assert len(polygons) == len(indexes) == 0


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_of_areas_that_share_an_edge_one_keeps_a_whole_building(seed):
    random = np.random.default_rng(seed)
    col, row = random.integers(1, (89, 59)).tolist()
    tiles = [(0, 0, col, row), (col, 0, 90, row), (0, row, col, 60), (col, row, 90, 60)]
    corners = random.integers(0, (80, 50), (20, 2))
    opposite = corners + random.integers(1, 11, (20, 2))
    houses = shapely.box(*corners.T, *opposite.T)
    kept = []
    for tile in tiles:
        polygons, indexes = Area(shapely.box(*tile), 60, 90, "whole", 20).keep(houses)
        assert (polygons == houses[indexes]).all()
        kept += indexes.tolist()
    assert sorted(kept) == list(range(20))


def test_a_margin_is_predicted_for_whole_buildings():
    near = read_area(corners(40, 35, 44, 30), GROUND, edge="whole")
    assert near.margin == pytest.approx(MARGIN / 0.3)
    assert near.window == Window(0, 0, 60, 90)
    coarse = GROUND._replace(transform=from_origin(353875, 3057565, 10, 10))
    left, top = 353875 + 400, 3057565 - 300
    area = read_area((left, top - 50, left + 40, top), coarse, edge="whole")
    assert area.window == Window(25, 35, 15, 14)
    assert area.mask(area.window).sum() == 20
    # A rectangle with round corners, five pixels around one of 4 x 5.
    margin = area.mask(area.window, margin=True).sum()
    assert margin == pytest.approx(20 + 2 * 5 * (4 + 5) + np.pi * 25, abs=6)
    assert Area.on(PIXELS, SHAPE, "whole").margin == MARGIN_PIXELS
    assert Area.on(GROUND, SHAPE, "cut").margin == 0


def test_buildings_that_the_margin_ends_are_counted():
    area = Area(shapely.box(0, 0, 30, 60), 60, 90, "whole", 20)
    short, long = shapely.box(20, 5, 45, 9), shapely.box(5, 20, 50, 30)
    at_the_rim = shapely.box(0, 50, 10, 60)
    assert area.beyond(np.array([short, long, at_the_rim])) == 1


BOWTIE = shapely.Polygon([(5, 5), (30, 30), (30, 5), (5, 30)])


@pytest.mark.parametrize(
    ("source", "crs", "says"),
    [
        ((5, 2, 3, 4), None, "xmin,ymin,xmax,ymax with min below max, got 5,2,3,4"),
        ((1, 2, 3, 2), None, "with min below max, got 1,2,3,2"),
        ((1, 2, float("nan"), 4), None, "with min below max, got 1,2,nan,4"),
        ((1, 2, 3, 4), "EPSG:77777", "a CRS is like EPSG:4326, got EPSG:77777"),
        ((1, 2, 3, 4), "mars", "a CRS is like EPSG:4326, got mars"),
        ((80, 120, 81, 121), "EPSG:4326", "has no place in the raster's CRS"),
        ((1, 2, 3, 4), None, r"must overlap the raster, got \(1, 2, 3, 4\)"),
        ([BOWTIE], None, r"is valid, got Self-intersection\[.*a\.gpkg"),
        ([shapely.LineString([(1, 1), (9, 9)])], None, "must be polygons.*a.gpkg"),
        ([shapely.box(200, 0, 300, 9)], None, "must overlap the raster.*a.gpkg"),
        ([], None, "an area of interest is a polygon, got none.*a.gpkg"),
        ([SHAPE], "EPSG:4326", "a file says its own.*a.gpkg"),
    ],
)
def test_what_is_no_area_is_one_line(tmp_path, capfd, source, crs, says):
    if isinstance(source, list):
        source = write(tmp_path / "a.gpkg", source)
    with pytest.raises(ValueError, match=says) as refused:
        read_area(source, GROUND, crs)
    assert "\n" not in str(refused.value)
    assert capfd.readouterr().err == ""
    assert isinstance(refused.value, NoOverlapError) == ("overlap" in says)


def test_one_of_raster_and_area_without_crs_is_an_error(tmp_path):
    pixels = write(tmp_path / "a.gpkg", [SHAPE], None)
    with pytest.raises(ValueError, match=r"both have a CRS or both have none.*a\.gpkg"):
        read_area(pixels, GROUND)
    placed = write(tmp_path / "b.gpkg", [SHAPE])
    with pytest.raises(ValueError, match=r"both have a CRS or both have none.*b\.gpkg"):
        read_area(placed, PIXELS)
    with pytest.raises(ValueError, match=r"the raster has no CRS, .* got EPSG:4326"):
        read_area((1, 2, 3, 4), PIXELS, "EPSG:4326")
    assert read_area((1, 2, 3, 4), PIXELS).window == Window(2, 1, 2, 2)


def test_there_are_two_kinds_of_edges():
    with pytest.raises(ValueError, match="is cut or whole, got round"):
        read_area((1, 2, 3, 4), PIXELS, edge="round")


def test_an_area_around_the_world_is_an_area(tmp_path):
    ring = [[-180, -90], [180, -90], [180, 90], [-180, 90], [-180, -90]]
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    with pytest.raises(ValueError, match=r"a\.geojson$"):
        read_area(path, GROUND)
