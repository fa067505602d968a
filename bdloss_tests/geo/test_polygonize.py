import json

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rasterio import Affine, features
from scipy import ndimage

from bdloss.geo import polygonize, watershed
from bdloss.geo.geobox import GeoBox
from bdloss.geo.polygonize import (
    count_vertices,
    mask_to_polygons,
    outline_strips,
)
from bdloss.geo.vector import rasterise
from bdloss_tests.drawing import draw, smooth_probabilities
from bdloss_tests.scenes import CORNER, UTM

HEIGHT, WIDTH = 60, 90
GRID = GeoBox(HEIGHT, WIDTH, CORNER, UTM)
PIXELS = GeoBox(HEIGHT, WIDTH, Affine.identity(), None)
MASK = np.zeros((HEIGHT, WIDTH), np.uint8)
MASK[5:22, 10:31] = 1
MASK[30:58, 40:77] = 1
MASK[40:47, 50:60] = 0


@given(arrays(np.uint8, (13, 17), elements=st.sampled_from([0, 1, 255])))
@settings(max_examples=50, deadline=None)
def test_polygons_of_a_mask_are_valid_and_draw_the_same_mask(mask):
    geobox = GRID._replace(height=13, width=17)
    polygons = mask_to_polygons(mask, geobox)
    assert all(polygon.is_valid for polygon in polygons)
    np.testing.assert_array_equal(rasterise(polygons, geobox), mask == 1)


@pytest.mark.parametrize("simplify", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_simplified_polygons_stay_valid_and_apart(share, simplify):
    random = np.random.default_rng(2)
    mask = (random.random((HEIGHT, WIDTH)) < share).astype(np.uint8)
    polygons = mask_to_polygons(mask, PIXELS, simplify=simplify)
    assert len(polygons) == len(mask_to_polygons(mask, PIXELS))
    assert all(polygon.is_valid for polygon in polygons)
    together = shapely.union_all(polygons).area
    assert sum(polygon.area for polygon in polygons) == pytest.approx(together)


def test_simplifying_straightens_a_slanted_wall():
    wall = shapely.Polygon([(5, 5), (70, 21), (70, 50), (5, 34)])
    mask = rasterise([wall], PIXELS)
    (stairs,) = mask_to_polygons(mask, PIXELS)
    (straight,) = mask_to_polygons(mask, PIXELS, simplify=1.5)
    assert shapely.get_num_coordinates(stairs) > 60
    assert shapely.get_num_coordinates(straight) < 20
    assert straight.hausdorff_distance(wall) < 1.5


def test_a_hole_stays_and_a_corner_does_not_join():
    mask = draw(
        """
        ###..
        #.#..
        ###..
        ...##
        """
    ).astype(np.uint8)
    ring, house = mask_to_polygons(mask, GeoBox(4, 5, Affine.identity(), None))
    assert (ring.area, len(ring.interiors)) == (8, 1)
    assert (house.area, len(house.interiors)) == (2, 0)


def test_small_buildings_are_left_out_by_their_area_on_the_ground():
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[3:13, 4:14] = 1  # 9 square metres
    mask[30:41, 4:14] = 1  # 9.9
    assert len(mask_to_polygons(mask, GRID, min_area=8.9)) == 2
    (larger,) = mask_to_polygons(mask, GRID, min_area=9.1)
    assert larger.area == pytest.approx(9.9)
    with pytest.raises(ValueError, match="min_area is in square metres"):
        mask_to_polygons(mask, PIXELS, min_area=1)


def trace_whole(mask):
    """The polygons of a whole mask by GDAL alone."""
    shapes = features.shapes(mask, mask=mask == 1, connectivity=4)
    return shapely.from_geojson([json.dumps(shape) for shape, _ in shapes])


def cut(layers, rows):
    """Cut layers `(2, height, width)` into bands that begin at these rows."""
    ends = [*rows[1:], layers.shape[1]]
    return [(r, layers[:, r:end]) for r, end in zip(rows, ends, strict=True)]


def outline(bands, height, width, **settings):
    found = list(outline_strips(bands, GeoBox(height, width, *PIXELS[2:]), **settings))
    if not found:
        return np.array([]), np.array([])
    return (
        np.concatenate([each.polygons for each in found]),
        np.concatenate([each.probability for each in found]),
    )


def same_order(polygons):
    """Polygons and their rings begun at the same point and in the same order."""
    return sorted(shapely.to_wkb(shapely.normalize(polygons)).tolist())


@given(
    arrays(np.uint8, (19, 11), elements=st.sampled_from([0, 1, 1, 255])),
    st.sets(st.integers(1, 18)),
)
@settings(max_examples=150, deadline=None)
def test_bands_give_the_polygons_of_the_whole_mask(mask, rows):
    values = np.random.default_rng(3).integers(0, 255, mask.shape, np.uint8)
    bands = cut(np.stack([mask, values]), [0, *sorted(rows)])
    polygons, means = outline(bands, *mask.shape)
    assert same_order(polygons) == same_order(trace_whole(mask))
    assert shapely.is_valid(polygons).all()
    for polygon, mean in zip(polygons, means, strict=True):
        inside = rasterise([polygon], PIXELS._replace(height=19, width=11)) == 1
        assert mean == pytest.approx(values[inside].mean())


@pytest.mark.parametrize("rows", [1, 7, 25])
@pytest.mark.parametrize("share", [0.2, 0.45, 0.6])
def test_simplified_polygons_of_bands_stay_valid_and_apart(share, rows):
    mask = (np.random.default_rng(4).random((HEIGHT, WIDTH)) < share).astype(np.uint8)
    bands = cut(np.stack([mask, mask]), list(range(0, HEIGHT, rows)))
    polygons, _ = outline(bands, HEIGHT, WIDTH, simplify=1.0)
    assert len(polygons) == len(trace_whole(mask))
    assert shapely.is_valid(polygons).all()
    assert shapely.area(polygons).sum() == pytest.approx(
        shapely.union_all(polygons).area
    )


@given(st.sets(st.integers(1, 149), max_size=9))
@settings(max_examples=20, deadline=None)
def test_simplified_polygons_are_the_same_however_the_mask_is_cut(rows):
    noise = np.random.default_rng(2).random((150, 110))
    mask = (ndimage.gaussian_filter(noise, 2.0) > 0.51).astype(np.uint8)
    layers = np.stack([mask, mask])
    whole, _ = outline(cut(layers, [0]), 150, 110, simplify=1.0)
    parts, _ = outline(cut(layers, [0, *sorted(rows)]), 150, 110, simplify=1.0)
    assert len(whole) > 20
    assert same_order(parts) == same_order(whole)


HOLES = """
    #########..
    #.......#..
    #.##.##.#..
    #.##.##.#..
    #.......###
    ####.####.#
    ####.####.#
    #########.#
    #########.#
    ###########
    """


@pytest.mark.parametrize("rows", [[0], list(range(10)), [0, 3, 6]])
@pytest.mark.parametrize(("min_hole", "holes"), [(0, 2), (0.3, 2), (0.4, 1), (3.0, 1)])
def test_small_holes_are_filled_unless_a_building_is_in_them(min_hole, holes, rows):
    mask = draw(HOLES).astype(np.uint8)  # 0.09 square metres a pixel
    grid = GRID._replace(height=10, width=11)
    found = outline_strips(cut(np.stack([mask, mask]), rows), grid, min_hole=min_hole)
    polygons = np.concatenate([each.polygons for each in found])
    assert len(polygons) == 3
    whole = max(polygons, key=shapely.area)
    assert len(whole.interiors) == holes
    assert shapely.is_valid(polygons).all()
    filled = 4 * 0.09 if holes == 1 else 0
    assert shapely.area(polygons).sum() == pytest.approx(0.09 * mask.sum() + filled)


@given(st.integers(0, 2**32 - 1), st.sets(st.integers(1, HEIGHT - 1), max_size=9))
@settings(max_examples=25, deadline=None)
def test_holes_and_right_angles_are_the_same_however_the_mask_is_cut(seed, rows):
    layers = touching(seed)
    how = {"split": True, "simplify": 1.0, "min_hole": 2.0, "min_iou": 0.8}

    def found(rows):
        outlines = list(outline_strips(cut(layers, rows), GRID, **how))
        names = ("polygons", "regular", "vertices", "area")
        parts = [[getattr(each, name) for each in outlines] for name in names]
        return [np.concatenate(part) for part in parts]

    whole, parts = found([0]), found([0, *sorted(rows)])
    assert same_order(parts[0]) == same_order(whole[0])
    for ours, theirs in zip(parts[1:], whole[1:], strict=True):
        np.testing.assert_allclose(np.sort(ours), np.sort(theirs))
    plain = outline_strips(cut(layers, [0]), GRID, **{**how, "min_iou": None})
    counted = [count_vertices(each.polygons) for each in plain]
    assert sorted(np.concatenate(counted)) == sorted(whole[2])


def touching(seed):
    """Layers of buildings, their probability and that of contact."""
    building, contact = smooth_probabilities(seed, (HEIGHT, WIDTH), levels=20)
    return np.stack([(building >= 127).astype(np.uint8), building, contact])


@given(
    st.integers(0, 2**32 - 1),
    st.sets(st.integers(1, HEIGHT - 1), max_size=9),
    st.sampled_from([1, 7 * WIDTH, HEIGHT * WIDTH]),
    st.sampled_from([1, 13, polygonize.COLUMNS]),
    st.sampled_from([0.0, 1.0]),
)
@settings(max_examples=90, deadline=None)
def test_buildings_are_split_the_same_however_the_mask_is_cut(
    seed, rows, piece_pixels, columns, simplify
):
    layers, how = touching(seed), {"simplify": simplify, "split": True}
    whole, means = outline(cut(layers, [0]), HEIGHT, WIDTH, **how)
    bands = cut(layers, [0, *sorted(rows)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(polygonize, "COLUMNS", columns)
        parts, found = outline(bands, HEIGHT, WIDTH, piece_pixels=piece_pixels, **how)
    assert same_order(parts) == same_order(whole)
    np.testing.assert_allclose(np.sort(found), np.sort(means))


@pytest.mark.parametrize("seed", range(5))
def test_split_buildings_cover_the_mask_once_with_their_means(seed):
    layers = touching(seed)
    bands = cut(layers, list(range(0, HEIGHT, 13)))
    polygons, means = outline(bands, HEIGHT, WIDTH, split=True)
    assert len(polygons) > len(trace_whole(layers[0]))
    assert shapely.is_valid(polygons).all()
    drawn = [rasterise([polygon], PIXELS) == 1 for polygon in polygons]
    np.testing.assert_array_equal(np.sum(drawn, axis=0), layers[0])
    for pixels, mean in zip(drawn, means, strict=True):
        assert mean == pytest.approx(layers[1][pixels].mean())


@pytest.mark.parametrize("simplify", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("seed", range(5))
def test_split_buildings_share_their_walls_when_they_are_simplified(seed, simplify):
    bands = cut(touching(seed), list(range(0, HEIGHT, 13)))
    polygons, _ = outline(bands, HEIGHT, WIDTH, simplify=simplify, split=True)
    assert shapely.coverage_is_valid(polygons)
    together, whole = shapely.union_all(polygons), trace_whole(touching(seed)[0])
    assert shapely.area(polygons).sum() == pytest.approx(together.area)
    # No gap opens where walls meet: there are no more holes than before.
    holes = shapely.get_num_interior_rings(shapely.get_parts(together)).sum()
    assert holes <= shapely.get_num_interior_rings(whole).sum()


def test_houses_in_a_row_are_split_and_their_walls_stay_straight():
    layers = np.zeros((3, HEIGHT, WIDTH), np.uint8)
    layers[:2, 10:30, 5:85] = [[[1]], [[250]]]
    layers[2, 10:30, 24:86:20] = 240
    polygons, _ = outline(cut(layers, [0, 17]), HEIGHT, WIDTH, simplify=1.0, split=True)
    houses = [shapely.box(left, 10, left + 20, 30) for left in range(5, 85, 20)]
    assert same_order(polygons) == same_order(houses)


def test_a_component_too_large_to_be_split_stays_whole(caplog):
    layers = touching(3)
    labels, _ = ndimage.label(layers[0])
    boxes = ndimage.find_objects(labels)
    areas = [np.prod([side.stop - side.start for side in box]) for box in boxes]
    largest = int(max(areas))
    split = len(outline(cut(layers, [0]), HEIGHT, WIDTH, split=True)[0])
    found = []
    for rows in ([0], [0, 3, 30, 31], range(HEIGHT)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(watershed, "LARGEST", largest - 1)
            caplog.clear()
            polygons, _ = outline(cut(layers, list(rows)), HEIGHT, WIDTH, split=True)
        assert len(caplog.messages) == 1
        assert "stay one: a component is not split beyond" in caplog.text
        found.append(same_order(polygons))
    assert found[0] == found[1] == found[2]
    assert len(trace_whole(layers[0])) <= len(found[0]) < split


@pytest.mark.parametrize("edges", [1, 7, 32])
def test_walls_are_the_boundaries_of_polygons_in_short_lines(edges, monkeypatch):
    monkeypatch.setattr(polygonize, "LINE_EDGES", edges)
    mask = (np.random.default_rng(3).random((HEIGHT, WIDTH)) < 0.65).astype(np.uint8)
    polygons = np.array(mask_to_polygons(mask, PIXELS))
    assert shapely.get_num_coordinates(polygons).max() > 1000  # it percolates
    walls, of = polygonize._walls(polygons)
    assert shapely.get_num_coordinates(walls).max() == edges + 1
    for place, polygon in enumerate(polygons):
        own = walls[of == place]
        assert shapely.length(own).sum() == pytest.approx(polygon.length)
        assert shapely.union_all(own).equals(polygon.boundary)


def test_finished_buildings_do_not_wait_for_the_last_band():
    mask = np.zeros((90, 40), np.uint8)
    mask[3::10] = mask[4::10] = 1  # a bar in each band
    bands = cut(np.stack([mask, mask]), list(range(0, 90, 10)))
    read = []
    stream = outline_strips(
        (read.append(1) or band for band in bands), GRID, simplify=1.0
    )
    for found in range(1, 10):
        assert len(next(stream).polygons) == 1
        assert len(read) == found


def test_large_bands_are_outlined_in_pieces():
    polygons = mask_to_polygons(MASK, PIXELS, piece_pixels=3 * WIDTH)
    assert same_order(polygons) == same_order(trace_whole(MASK))


def test_a_mask_has_the_size_of_its_grid():
    with pytest.raises(ValueError, match=r"size \(60, 90\), got \(60, 89\)"):
        mask_to_polygons(MASK[:, 1:], GRID)


def test_an_empty_mask_has_no_polygons():
    assert mask_to_polygons(np.zeros_like(MASK), GRID, min_area=1, simplify=1) == []
