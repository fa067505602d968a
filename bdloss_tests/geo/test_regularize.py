"""Right angles: where they belong, how far they go, no overlap."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio import Affine
from scipy import ndimage
from shapely import affinity

from bdloss.geo.geobox import GeoBox
from bdloss.geo.polygonize import mask_to_polygons
from bdloss.geo.regularize import COARSE, SLIVER, iou, regularize, straighten
from bdloss.geo.vector import rasterise
from bdloss_tests.drawing import smooth_probabilities

SIDE = 120
PIXELS = GeoBox(SIDE, SIDE, Affine.identity(), None)
L_SHAPE = shapely.from_wkt(
    "POLYGON ((30 40, 90 40, 90 60, 55 60, 55 85, 30 85, 30 40))"
)


def ragged(polygon, seed=0):
    """Its outline along pixels, as a network that is unsure of walls draws it."""
    mask = rasterise([polygon], PIXELS) == 1
    distance = ndimage.distance_transform_edt(mask)
    distance -= ndimage.distance_transform_edt(~mask)
    noise = np.random.default_rng(seed).normal(size=mask.shape)
    wobble = ndimage.gaussian_filter(noise, 1.5)
    parts = mask_to_polygons((distance + 5 * wobble > 0).astype(np.uint8), PIXELS)
    largest = max(parts, key=shapely.area)
    holes = [hole for hole in largest.interiors if shapely.Polygon(hole).area > 20]
    return shapely.Polygon(largest.exterior, holes)


def angles_of(polygon):
    """Of its walls, in degrees, but for right angles."""
    walls = np.diff(shapely.get_coordinates(polygon.exterior), axis=0)
    return np.degrees(np.arctan2(walls[:, 1], walls[:, 0])) % 90


@pytest.mark.parametrize("turn", [0, 17, 45, 80])
@pytest.mark.parametrize(("house", "walls"), [("box", 4), ("L", 6)])
def test_a_ragged_house_gets_its_walls_back(house, walls, turn):
    house = shapely.box(30, 40, 90, 75) if house == "box" else L_SHAPE
    house = affinity.rotate(house, turn)
    raw = ragged(house)
    assert shapely.get_num_coordinates(raw) > 60
    straight = straighten(raw)
    assert shapely.get_num_coordinates(straight) == walls + 1
    assert iou(straight, house) > max(0.93, iou(raw, house))
    angles = angles_of(straight)
    off = np.abs((angles - angles[0] + 45) % 90 - 45)
    assert off.max() < 1e-6
    assert abs((angles[0] - turn + 45) % 90 - 45) < 3


def test_a_court_gets_right_angles_too():
    outer, court = (
        affinity.rotate(shapely.box(*box), 20, origin=(60, 60))
        for box in ((20, 25, 100, 95), (45, 45, 75, 75))
    )
    straight = straighten(ragged(outer.difference(court)))
    (hole,) = straight.interiors
    assert len(hole.coords) == 5
    assert shapely.Polygon(hole).area == pytest.approx(court.area, rel=0.15)


@pytest.mark.parametrize("radius", [9, 20, 30, 40])
@pytest.mark.parametrize("min_iou", [0.9, 0.95])
def test_what_is_round_does_not_become_a_staircase(radius, min_iou):
    raw = np.array([ragged(shapely.Point(60, 60).buffer(radius))])
    simplified = shapely.coverage_simplify(raw, COARSE)
    found = regularize(raw, simplified, min_iou)
    assert not found.regular.any()
    assert found.polygons[0].equals(simplified[0])


@pytest.mark.parametrize("min_iou", [0.8, 0.9, 0.97])
def test_no_more_is_given_up_than_was_said(min_iou):
    found = [
        (straighten(raw, min_iou), raw)
        for raw in (ragged(L_SHAPE, seed) for seed in range(6))
    ]
    assert all(one is None or iou(one, raw) >= min_iou for one, raw in found)
    assert sum(one is not None for one, _ in found) >= (4 if min_iou < 0.95 else 0)


def crowd(seed):
    """Raw outlines of buildings that are near to each other, or touch."""
    building, _ = smooth_probabilities(seed, (SIDE, SIDE), levels=20)
    blocks = np.kron(
        np.random.default_rng(seed).random((8, 8)) < 0.6, np.ones((15, 15))
    )
    mask = ((building > 110) & (blocks > 0)).astype(np.uint8)
    return np.array(mask_to_polygons(mask, PIXELS), object)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.3, 0.7, 0.9]))
@settings(max_examples=25, deadline=None)
def test_no_two_overlap_and_order_is_nothing_to_them(seed, min_iou):
    raw = crowd(seed)
    coarse = shapely.coverage_simplify(raw, COARSE)
    found = regularize(raw, coarse, min_iou)
    assert shapely.is_valid(found.polygons).all()
    assert not shapely.is_empty(found.polygons).any()
    kept = found.regular
    assert (iou(found.polygons[kept], raw[kept]) >= min_iou - 1e-9).all()
    first, second = shapely.STRtree(found.polygons).query(found.polygons, "intersects")
    pair = first < second
    both = shapely.intersection(
        found.polygons[first[pair]], found.polygons[second[pair]]
    )
    assert (shapely.area(both) <= SLIVER).all()
    order = np.random.default_rng(seed).permutation(len(raw))
    again = regularize(raw[order], coarse[order], min_iou)
    np.testing.assert_array_equal(again.regular, found.regular[order])
    assert shapely.equals_exact(again.polygons, found.polygons[order], 1e-9).all()


def test_the_smaller_of_two_ends_at_the_wall_of_the_larger():
    large = affinity.rotate(shapely.box(10, 20, 60, 100), 3)
    small = affinity.rotate(shapely.box(61, 40, 95, 80), -4)
    mask = rasterise([large], PIXELS) | 2 * rasterise([small], PIXELS)
    raw = np.array(
        [mask_to_polygons((mask == n).astype(np.uint8), PIXELS)[0] for n in (1, 2)]
    )
    found = regularize(raw, shapely.coverage_simplify(raw, COARSE), 0.9)
    assert found.regular.all()
    assert iou(found.polygons[0], large) > 0.97
    assert shapely.area(shapely.intersection(*found.polygons)) <= SLIVER
    alone = straighten(raw[1])
    assert shapely.area(alone.intersection(found.polygons[0])) > 1
    assert found.polygons[1].area < alone.area
