import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bdloss.geo.windows import Window, sliding_windows
from bdloss.inference.blending import BlendBuffer, merge_windows, taper


@st.composite
def tilings(draw):
    """Height, width, side, stride: the raster may be smaller than a window."""
    side = draw(st.integers(1, 40))
    return (
        draw(st.integers(1, 100)),
        draw(st.integers(1, 100)),
        side,
        draw(st.integers(max(1, side // 8), side)),
    )


def merge(maps, height, width, side, stride):
    """Merge windows of one map each."""
    stacked = ((window, values[None]) for window, values in maps)
    return merge_maps(stacked, height, width, side, stride)[0]


def merge_maps(maps, height, width, side, stride, number=1):
    blocks = list(merge_windows(maps, height, width, side, stride, number=number))
    assert [row for row, _ in blocks] == np.cumsum(
        [0] + [block.shape[1] for _, block in blocks[:-1]]
    ).tolist()
    return np.concatenate([block for _, block in blocks], axis=1)


@pytest.mark.parametrize("side", [1, 2, 3, 32, 512])
def test_taper_is_symmetric_and_never_zero(side):
    weights = taper(side)
    assert weights.shape == (side,)
    assert weights.dtype == np.float32
    assert weights.min() > 0
    assert weights.max() <= 1
    assert weights == pytest.approx(weights[::-1], rel=1e-4)


def test_two_windows_by_hand():
    # Side 2, stride 1: equal tapers, so the middle pixel is the mean of both windows.
    maps = [
        (Window(0, 0, 1, 2), np.array([[1.0, 1.0], [9.0, 9.0]])),
        (Window(0, 1, 1, 2), np.array([[0.0, 0.0], [9.0, 9.0]])),
    ]
    assert merge(maps, 1, 3, side=2, stride=1).tolist() == [[1.0, 0.5, 0.0]]


@settings(max_examples=60, deadline=None)
@given(tiling=tilings())
def test_ones_stay_ones_up_to_the_rim(tiling):
    height, width, side, _ = tiling
    maps = ((window, np.ones((side, side))) for window in sliding_windows(*tiling))
    merged = merge(maps, *tiling)
    assert merged.shape == (height, width)
    assert merged.dtype == np.float32
    assert merged == pytest.approx(np.ones((height, width)), abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(tiling=tilings(), seed=st.integers(0, 2**32 - 1))
def test_whole_array_reference(tiling, seed):
    height, width, side, _ = tiling
    rng = np.random.default_rng(seed)
    maps = [(window, rng.random((side, side))) for window in sliding_windows(*tiling)]

    sine = np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2
    total, weight = np.zeros((2, height, width))
    for window, values in maps:
        weights = np.outer(sine[: window.height], sine[: window.width])
        total[window.slices] += weights * values[: window.height, : window.width]
        weight[window.slices] += weights

    assert merge(maps, *tiling) == pytest.approx(total / weight, abs=1e-6)


def test_each_of_several_maps_is_merged_as_if_it_were_alone():
    tiling, random = (53, 41, 16, 11), np.random.default_rng(8)
    maps = [(w, random.random((3, 16, 16))) for w in sliding_windows(*tiling)]
    merged = merge_maps(maps, *tiling, number=3)
    for number in range(3):
        alone = merge([(window, values[number]) for window, values in maps], *tiling)
        np.testing.assert_array_equal(merged[number], alone)


def test_memory_is_bounded_by_the_window():
    heights = set()
    for height in (50, 5_000, 50_000):
        buffer = BlendBuffer(height, 7, side=16, stride=12)
        heights.add(buffer.rows.shape[1])
        for window in sliding_windows(height, 7, 16, 12):
            assert all(block.shape[1] <= 16 for _, block in buffer.release(window.row))
            buffer.add(window, np.ones((1, 16, 16)))
            heights.add(buffer.rows.shape[1])
    assert heights == {16}


def test_blocks_come_as_soon_as_they_are_finished():
    seen = []

    def maps():
        for window in sliding_windows(100, 3, 10, 5):
            seen.append(window.row)
            yield window, np.ones((1, 10, 10))

    row, block = next(merge_windows(maps(), 100, 3, side=10, stride=5))
    assert (row, block.shape) == (0, (1, 5, 3))
    assert seen == [0, 5]


def test_a_block_is_the_callers_to_keep():
    maps = [
        (window, np.full((1, 4, 4), window.row))
        for window in sliding_windows(12, 4, 4, 4)
    ]
    blocks = [block for _, block in merge_windows(maps, 12, 4, side=4, stride=4)]
    assert [block.mean() for block in blocks] == [0, 4, 8]


def test_windows_left_out_are_zeros():
    left_out = {0, 12, 15, 18, 21, 24, 27, 30}  # more rows than the buffer has
    maps = [
        (window, np.ones((6, 6)))
        for window in sliding_windows(43, 9, 6, 3)
        if window.row not in left_out
    ]
    merged = merge(maps, 43, 9, side=6, stride=3)
    assert merged[:3].max() == 0
    assert merged[15:33].max() == 0
    assert merged[6:12].min() == pytest.approx(1)
    assert merged[36:].min() == pytest.approx(1)


def test_windows_must_come_from_top_to_bottom():
    maps = [
        (Window(4, 0, 4, 4), np.ones((1, 4, 4))),
        (Window(0, 0, 4, 4), np.ones((1, 4, 4))),
    ]
    with pytest.raises(ValueError, match="row 0 came after row 4"):
        list(merge_windows(maps, 8, 4, side=4, stride=4))


@settings(max_examples=60, deadline=None)
@given(tiling=tilings(), data=st.data())
def test_rows_are_the_same_wherever_it_is_begun(tiling, data):
    height, _, side, _ = tiling
    first = data.draw(st.integers(0, height - 1))
    last = data.draw(st.integers(first + 1, height))
    random = np.random.default_rng(2)
    maps = [
        (window, random.random((side, side))) for window in sliding_windows(*tiling)
    ]
    whole = merge(maps, *tiling)
    part = [(w, m[None]) for w, m in maps if w.row + w.height > first and w.row < last]
    blocks = list(merge_windows(part, *tiling, first, last))
    assert blocks[0][0] == first
    np.testing.assert_array_equal(
        np.concatenate([block for _, block in blocks], axis=1)[0], whole[first:last]
    )
