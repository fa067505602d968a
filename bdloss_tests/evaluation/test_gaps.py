import math

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from scipy import ndimage

from bdloss.data.scenes import Scene
from bdloss.evaluation.gaps import (
    advise,
    draw_gaps,
    largest_theta,
    measure_files,
    measure_gaps,
    measure_scenes,
    share_closer,
)
from bdloss.geo import raster
from bdloss.geo.geobox import GeoBox
from bdloss.geo.outline_writer import write_outlines
from bdloss.geo.windows import Window
from bdloss_tests.drawing import draw

UTM = CRS.from_epsg(32645)


@pytest.mark.parametrize(
    ("drawing", "gaps"),
    [
        pytest.param("##...#.##", [3, 1, 1], id="in a row"),
        pytest.param("#. .. .#", [1, 1], id="in a column and askew"),
        pytest.param("##.. ##.. ..## ..##", [math.inf], id="corners touch: one"),
        pytest.param("#.... ..... ..... ....#", [3, 3], id="across"),
        pytest.param("#??#", [2, 2], id="ignored pixels are background"),
        pytest.param("##### #...# #.#.# #...# #####", [1, 1], id="in a courtyard"),
        pytest.param("...", [], id="none"),
    ],
)
def test_gap_is_the_widest_square_between_a_building_and_its_neighbour(drawing, gaps):
    assert measure_gaps(draw(drawing)).tolist() == gaps


def gaps_by_distance(mask):
    """The slow way: for each building distances to all others over the whole mask."""
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    gaps = []
    for label in range(1, count + 1):
        others = (labels > 0) & (labels != label)
        distance = ndimage.distance_transform_cdt(~others, "chessboard")
        gaps.append(distance[labels == label].min() - 1 if others.any() else math.inf)
    return sorted(gaps)


@given(
    seed=st.integers(0, 999),
    height=st.integers(1, 90),
    width=st.integers(1, 70),
    level=st.floats(1.0, 3.0),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_gaps_equal_those_by_distance(seed, height, width, level):
    noise = np.random.default_rng(seed).normal(size=(height, width))
    noise = ndimage.gaussian_filter(noise, 1.2)
    mask = (noise > level * noise.std()).astype(np.uint8)
    assert sorted(measure_gaps(mask)) == gaps_by_distance(mask)


def test_far_neighbours_are_found():
    mask = np.zeros((40, 900), np.uint8)
    mask[3:9, 2:12] = mask[30:33, 800:803] = 1
    assert measure_gaps(mask).tolist() == [800 - 12, 800 - 12]


@pytest.mark.parametrize(
    ("gap", "theta"),
    [(1, None), (3, None), (4, 3), (5, 3), (6, 5), (7, 5), (8, 7), (math.inf, None)],
)
def test_theta_is_odd_and_smaller_than_the_gap(gap, theta):
    assert largest_theta(gap) == theta


def test_advice_with_and_without_the_closest_few():
    gaps = np.array([2.0] * 3 + [8.0] * 60 + [20.0] * 35 + [math.inf] * 2)
    advice = advise(gaps, share=0.05)
    assert (advice.buildings, advice.alone) == (100, 2)
    assert (advice.smallest, advice.theta) == (2, None)
    assert (advice.quantile, advice.robust_theta) == (8, 7)
    assert share_closer(gaps, 7) == pytest.approx(0.03)
    assert share_closer(gaps, 8) == pytest.approx(0.63)
    assert advise(gaps, share=0.01).robust_theta is None


def test_a_lone_building_holds_nothing_back():
    advice = advise(np.array([math.inf]))
    assert (advice.alone, advice.theta, advice.robust_theta) == (1, None, None)
    assert advice.smallest == advice.quantile == math.inf


def write_mask(path, mask):
    geobox = GeoBox(*mask.shape, Affine(0.5, 0, 353000, 0, -0.5, 3057000), UTM)
    with raster.create_mask(path, geobox) as target:
        target.write(mask.astype(np.uint8), Window(0, 0, *mask.shape))


def test_gaps_of_mask_files_are_put_together(tmp_path, caplog):
    write_mask(tmp_path / "a.tif", draw("#..# .... ...."))
    write_mask(tmp_path / "b.tif", draw("#.# ... ..."))
    caplog.set_level("INFO", "bdloss")
    gaps = measure_files([tmp_path / "a.tif", tmp_path / "b.tif"])
    assert gaps.tolist() == [2, 2, 1, 1]
    said = caplog.records[-1].getMessage()
    assert said == f"{tmp_path / 'b.tif'}: 2 buildings, smallest gap 1 pixels"


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson"])  # in metres, in degrees
@pytest.mark.parametrize(("resolution", "gap"), [(0.5, 12), (1.5, 4)])
def test_gaps_of_outlines_at_a_resolution(tmp_path, suffix, resolution, gap):
    houses = [shapely.box(x, 0, x + 9, 12) for x in (0, 15)]  # 6 metres apart
    houses = [shapely.affinity.translate(h, 353001, 3057003) for h in houses]
    write_outlines(tmp_path / f"houses{suffix}", houses, UTM)
    gaps = measure_files([tmp_path / f"houses{suffix}"], resolution)
    assert gaps == pytest.approx([gap, gap], abs=0 if suffix == ".gpkg" else 1)


def test_scenes_are_measured_in_their_area(tmp_path):
    mask = np.zeros((20, 31), np.uint8)
    mask[2:5, 3:6] = mask[2:5, 10:14] = mask[12:15, 3:6] = 1
    write_mask(tmp_path / "truth.tif", mask)
    scene = Scene("east", tmp_path / "truth.tif", tmp_path / "truth.tif")
    assert measure_scenes([scene]).tolist() == [4, 4, 7]
    upper = scene._replace(area=Window(0, 0, 10, 31))
    assert measure_scenes([upper, upper]).tolist() == [4, 4, 4, 4]


def test_histogram_is_written_whole_or_not_at_all(tmp_path):
    draw_gaps(np.array([6.0, 6, 9, 44, math.inf]), tmp_path / "gaps.png")
    assert (tmp_path / "gaps.png").read_bytes().startswith(b"\x89PNG")
    draw_gaps(np.array([math.inf]), tmp_path / "lone.png")
    with pytest.raises(ValueError, match="the masks have none"):
        draw_gaps(np.empty(0), tmp_path / "none.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["gaps.png", "lone.png"]


@pytest.mark.parametrize(
    ("call", "error", "rule"),
    [
        (lambda: advise(np.ones(3), share=1), ValueError, r"must lie in \[0, 1\)"),
        (lambda: measure_files(["no.tif"]), FileNotFoundError, "no such file: no.tif"),
        (
            lambda: measure_files(["no.gpkg"], 0.3),
            FileNotFoundError,
            "no such file: no.gpkg",
        ),
        (
            lambda: measure_files(["houses.gpkg"]),
            ValueError,
            "outlines need the resolution of a pixel in metres, got None: houses.gpkg",
        ),
    ],
)
def test_bad_arguments(call, error, rule):
    with pytest.raises(error, match=rule):
        call()


def test_outlines_too_far_apart_for_one_mask(tmp_path):
    houses = [shapely.box(x, 3057000, x + 9, 3057009) for x in (353000, 453000)]
    houses.append(shapely.box(353000, 3157000, 353009, 3157009))
    write_outlines(tmp_path / "country.gpkg", houses, UTM)
    with pytest.raises(ValueError, match="must fit into 500 million pixels"):
        measure_files([tmp_path / "country.gpkg"], 0.3)


def test_a_mask_without_pixels_has_no_gaps():
    assert measure_gaps(np.zeros((0, 4), np.uint8)).size == 0
