import itertools
import math

import numpy as np
import pytest
import shapely
from shapely import MultiPolygon, Point, Polygon, box
from shapely.affinity import rotate

from bdloss.metrics.buildings import count_instances
from bdloss.metrics.polygons import (
    PolygonCounts,
    complexity_iou,
    count_polygons,
    match_polygons,
    mend,
    n_ratio,
    polis,
)
from bdloss.metrics.scores import add_counts
from bdloss_tests.drawing import numbered_buildings

NAN = math.nan
SQUARE = box(0, 0, 1, 1)
RECTANGLE = box(0, 0, 8, 6)
YARD = Polygon(RECTANGLE.exterior, [box(3, 2, 5, 4).exterior])
BOW_TIE = Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        pytest.param(SQUARE, SQUARE, 0, id="same"),
        # Two corners of each are half a side from the other, two lie on its edges.
        pytest.param(SQUARE, box(0.5, 0, 1.5, 1), (2 * 0.5 + 2 * 0) / 4, id="moved"),
        # All four corners are 1 from an edge, all four others a diagonal from a corner.
        pytest.param(box(1, 1, 7, 5), RECTANGLE, (1 + 2**0.5) / 2, id="smaller"),
        # Only the upper corners of the second are apart, by 1.
        pytest.param(box(0, 0, 8, 5), RECTANGLE, 2 / 4 / 2, id="lower"),
        # A point on an edge is a vertex: one of six is 1 from the edge above.
        pytest.param(
            Polygon([(0, 0), (4, 0), (8, 0), (8, 5), (4, 5), (0, 5)]),
            RECTANGLE,
            (1 / 6 + 2 / 4) / 2,
            id="points on edges",
        ),
        # Four of eight vertices lie in the midst, 2 from the edge above or below.
        pytest.param(YARD, RECTANGLE, (4 * 2 / 8 + 0) / 2, id="hole missed"),
        pytest.param(YARD, YARD, 0, id="same hole"),
        # The corners of the second part are 1, 2, 2 and 1 away.
        pytest.param(
            MultiPolygon([SQUARE, box(2, 0, 3, 1)]), SQUARE, 6 / 8 / 2, id="parts"
        ),
    ],
)
def test_polis(a, b, expected):
    assert polis(a, b) == pytest.approx(expected, abs=1e-12)
    assert polis(b, a) == pytest.approx(expected, abs=1e-12)


def test_the_closing_point_is_no_vertex_wherever_a_ring_begins():
    # Two of four corners are 1 from the other rectangle; with the first counted twice
    # they would be two or three of five.
    corners = shapely.get_coordinates(RECTANGLE)[:-1]
    for first in range(4):
        turned = Polygon(np.roll(corners, first, axis=0))
        assert polis(turned, box(0, 0, 8, 5)) == 2 / 4 / 2


def by_segments(a, b):
    """The slow way: each vertex beside each edge (numpy)."""
    rings = [
        [shapely.get_coordinates(ring) for ring in (one.exterior, *one.interiors)]
        for one in (a, b)
    ]
    means = []
    for one, other in (rings, rings[::-1]):
        distances = []
        for point in np.vstack([ring[:-1] for ring in one]):
            near = []
            for ring in other:
                for start, end in itertools.pairwise(ring):
                    edge = end - start
                    along = np.clip((point - start) @ edge / (edge @ edge), 0, 1)
                    near.append(np.linalg.norm(start + along * edge - point))
            distances.append(min(near))
        means.append(np.mean(distances))
    return sum(means) / 2


def random_polygon(rng):
    """Return a star of chance around the origin, with a hole at times."""
    points = rng.integers(5, 12)
    angles = (np.arange(points) + rng.uniform(0, 0.8, points)) * 2 * np.pi / points
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    outer = Polygon(ring * rng.uniform(5, 8, (len(angles), 1)))
    inner = Polygon(ring * rng.uniform(1, 2, (len(angles), 1)))
    return outer.difference(inner) if rng.random() < 0.5 else outer


def test_polis_of_polygons_by_chance():
    rng = np.random.default_rng(1)
    for _ in range(200):
        a, b = random_polygon(rng), random_polygon(rng)
        assert polis(a, b) == pytest.approx(by_segments(a, b), abs=1e-9)
        angle = rng.uniform(0, 360)
        turned = (rotate(one, angle, origin=(3, 1)) for one in (a, b))
        assert polis(*turned) == pytest.approx(polis(a, b), abs=1e-9)


@pytest.mark.parametrize(
    ("y_true", "y_pred", "vertices", "c_iou"),
    [
        pytest.param([SQUARE], [SQUARE], 1, 1, id="same"),
        # Half of 48 in common; 4 and 4 vertices.
        pytest.param([RECTANGLE], [box(0, 0, 4, 6)], 1, 1 / 2, id="half"),
        # The same area with 8 vertices for 4: 1 - 4 / 12.
        pytest.param(
            [RECTANGLE], [RECTANGLE.segmentize(7)], 6 / 4, 1 - 2 / 10, id="more points"
        ),
        # 44 of 48 in common, 8 vertices for 4.
        pytest.param([RECTANGLE], [YARD], 2, 44 / 48 * (1 - 4 / 12), id="hole"),
        # Of two buildings one: 48 of 49, 4 vertices of 8.
        pytest.param(
            [RECTANGLE, box(9, 0, 10, 1)],
            [RECTANGLE],
            1 / 2,
            48 / 49 * (1 - 4 / 12),
            id="one missed",
        ),
        # Two that overlap cover an area once: 8 of 12, 8 vertices for 4.
        pytest.param(
            [box(0, 0, 4, 2)],
            [box(0, 0, 4, 2), box(2, 0, 6, 2)],
            2,
            8 / 12 * (1 - 4 / 12),
            id="overlap",
        ),
        pytest.param([SQUARE], [box(2, 0, 3, 1)], 1, 0, id="elsewhere"),
        pytest.param([SQUARE], [], 0, 0, id="no prediction"),
        pytest.param([], [SQUARE], NAN, 0, id="no truth"),
        pytest.param([], [], NAN, NAN, id="neither"),
    ],
)
def test_vertices_and_complexity_iou(y_true, y_pred, vertices, c_iou):
    assert n_ratio(y_true, y_pred) == pytest.approx(vertices, nan_ok=True)
    score = complexity_iou(y_true, y_pred)
    assert score == pytest.approx(c_iou, abs=1e-12, nan_ok=True)
    counts = count_polygons(y_true, y_pred)
    assert counts.n_ratio == pytest.approx(vertices, nan_ok=True)
    assert counts.complexity_iou == pytest.approx(c_iou, abs=1e-12, nan_ok=True)
    assert counts.images == bool(y_true or y_pred)


@pytest.mark.parametrize(
    ("y_true", "y_pred", "pairs"),
    [
        pytest.param([SQUARE], [SQUARE], [(0, 0, 1)], id="same"),
        pytest.param([RECTANGLE], [box(0, 0, 4, 6)], [(0, 0, 1 / 2)], id="half"),
        pytest.param([RECTANGLE], [box(0, 0, 3.9, 6)], [], id="less than half"),
        pytest.param(
            [box(0, 0, 8, 6), box(8, 0, 12, 6)],
            [box(8, 0, 12, 6), box(0, 0, 8, 5)],
            [(0, 1, 40 / 48), (1, 0, 1)],
            id="they touch",
        ),
        pytest.param(
            [RECTANGLE],
            [box(0, 0, 5, 6), box(0, 0, 7, 6), box(0, 0, 6, 6)],
            [(0, 1, 7 / 8)],
            id="the best of three",
        ),
        pytest.param(
            [RECTANGLE],
            [box(4, 0, 8, 6), box(0, 0, 4, 6)],
            [(0, 0, 1 / 2)],
            id="the first of two halves",
        ),
        pytest.param(
            [box(4, 0, 8, 6), box(0, 0, 4, 6)],
            [RECTANGLE],
            [(0, 0, 1 / 2)],
            id="the first of two wholes",
        ),
        pytest.param([SQUARE], [box(1, 0, 2, 1)], [], id="neighbours"),
        pytest.param([], [SQUARE], [], id="no truth"),
        pytest.param([SQUARE], [], [], id="no prediction"),
        pytest.param([], [], [], id="neither"),
    ],
)
def test_matched_polygons(y_true, y_pred, pairs):
    matches = match_polygons(y_true, y_pred)
    true, pred, iou = zip(*pairs, strict=True) if pairs else ((), (), ())
    assert (tuple(matches.true), tuple(matches.pred)) == (true, pred)
    assert tuple(matches.iou) == pytest.approx(iou)
    assert count_polygons(y_true, y_pred).matched == len(pairs)


def test_a_lower_iou_is_matched_if_asked_for():
    true, pred = [RECTANGLE], [box(0, 0, 2, 6)]
    assert len(match_polygons(true, pred).iou) == 0
    assert match_polygons(true, pred, min_iou=0.25).iou.tolist() == [1 / 4]
    assert count_polygons(true, pred, min_iou=0.25).matched == 1


@pytest.mark.parametrize("min_iou", [0, 1.1, NAN])
def test_a_min_iou_that_is_none_is_refused(min_iou):
    with pytest.raises(ValueError, match="min_iou must be above 0 and at most 1"):
        match_polygons([SQUARE], [SQUARE], min_iou)


def test_polygons_along_pixels_are_matched_as_the_pixels():
    rng = np.random.default_rng(3)
    matched = 0
    for _ in range(200):
        images = numbered_buildings(rng)
        outlines = [
            [
                shapely.union_all([box(x, y, x + 1, y + 1) for y, x in pixels])
                for number in np.unique(image[image > 0])
                if len(pixels := np.argwhere(image == number))
            ]
            for image in images
        ]
        counts = count_instances(
            *images, min_area=1, labelled_true=True, labelled_pred=True
        )
        iou = match_polygons(*outlines).iou
        assert len(iou) == counts.matched
        assert sum(iou) == pytest.approx(counts.matched_iou_sum)
        matched += counts.matched
    assert matched > 200


def test_polygons_of_several_images():
    one = count_polygons([SQUARE], [box(0.25, 0, 1.25, 1)])
    two = count_polygons([RECTANGLE, BOW_TIE], [YARD])
    both = add_counts(PolygonCounts(), one, count_polygons([], []), two)
    assert both == PolygonCounts(
        images=2,
        true_vertices=4 + 4 + 6,
        pred_vertices=4 + 8,
        true_invalid=1,
        pred_invalid=0,
        matched=2,
        polis_sum=pytest.approx(1 / 8 + 1 / 2),
        complexity_iou_sum=pytest.approx(3 / 5 + 44 / 48 * (1 - 2 / 18)),
    )
    assert both.n_ratio == 12 / 14
    assert both.polis == pytest.approx(5 / 16)
    assert both.complexity_iou == both.complexity_iou_sum / 2


def test_without_matched_polygons_polis_is_not_known():
    assert math.isnan(count_polygons([SQUARE], []).polis)
    assert math.isnan(count_polygons([SQUARE], [box(3, 0, 4, 1)]).polis)
    assert count_polygons([], []) == PolygonCounts()


def test_polygons_are_mended():
    hole_outside = Polygon(SQUARE.exterior, [box(0.5, 0.5, 2, 2).exterior])
    spike = Polygon([(0, 0), (4, 0), (4, 4), (4, 9), (4, 4), (0, 4)])
    line = Polygon([(0, 0), (1, 1), (2, 2)])
    twice = Polygon([(0, 0), (4, 0), (4, 4), (2, 4), (2, -2), (3, -2), (3, 4), (0, 4)])
    given = [SQUARE, BOW_TIE, YARD, hole_outside, spike, line, twice]
    mended, invalid = mend(given)
    assert invalid == 5
    assert [one.area for one in mended] == pytest.approx([1, 2, 44, 0.75, 16, 18])
    assert shapely.is_valid(mended).all()
    assert (mended[0], mended[2]) == (SQUARE, YARD)
    assert given[1] is BOW_TIE
    assert mend([]) == ([], 0)


@pytest.mark.parametrize(
    "odd", [Point(0, 0), None, Polygon(), SQUARE.exterior, MultiPolygon()]
)
def test_what_is_no_polygon_is_refused(odd):
    for score in (n_ratio, complexity_iou, match_polygons, count_polygons):
        with pytest.raises(ValueError, match="outlines must be polygons, not empty"):
            score([SQUARE], [SQUARE, odd])
    with pytest.raises(ValueError, match="outlines must be polygons, not empty"):
        polis(SQUARE, odd)
    with pytest.raises(ValueError, match="outlines must be polygons, not empty"):
        mend([odd])


def test_coordinates_that_are_not_numbers_are_refused():
    odd = Polygon([(0, 0), (1, 0), (1, math.inf)])
    with pytest.raises(ValueError, match="outlines must have finite coordinates"):
        polis(SQUARE, odd)
    with pytest.raises(ValueError, match="outlines must have finite coordinates"):
        mend([odd])


def test_polygons_that_cross_themselves_are_refused_unless_mended():
    for score in (complexity_iou, match_polygons):
        with pytest.raises(ValueError, match=r"must be valid .* got Self-intersection"):
            score([BOW_TIE], [SQUARE])
