import numpy as np
import pytest

from bdloss.geo.windows import Window, sliding_windows, starts


@pytest.mark.parametrize(
    ("length", "side", "stride", "expected"),
    [
        pytest.param(8, 4, 4, [0, 4], id="side by side"),
        pytest.param(10, 4, 3, [0, 3, 6], id="the last one ends at the edge"),
        pytest.param(11, 4, 3, [0, 3, 6, 7], id="the last one is shifted in"),
        pytest.param(5, 4, 4, [0, 1], id="one pixel longer than a window"),
        pytest.param(4, 4, 2, [0], id="as long as a window"),
        pytest.param(3, 4, 2, [0], id="shorter than a window"),
    ],
)
def test_where_windows_start(length, side, stride, expected):
    assert starts(length, side, stride) == expected


@pytest.mark.parametrize(
    ("length", "side", "stride", "message"),
    [
        (0, 4, 4, "length must be at least 1, got 0"),
        (9, 4, 0, "stride must be from 1 to the side 4, got 0"),
        (9, 4, 5, "stride must be from 1 to the side 4, got 5"),
    ],
)
def test_windows_leave_no_gap(length, side, stride, message):
    with pytest.raises(ValueError, match=message):
        starts(length, side, stride)


@pytest.mark.parametrize(("height", "width"), [(7, 12), (3, 12), (3, 2), (5, 5)])
@pytest.mark.parametrize(("side", "stride"), [(5, 5), (5, 2), (5, 1)])
def test_a_grid_covers_every_pixel_and_leaves_the_raster_nowhere(
    height, width, side, stride
):
    covered = np.zeros((height, width), int)
    for window in sliding_windows(height, width, side, stride):
        assert (window.height, window.width) == (min(side, height), min(side, width))
        assert covered[window.slices].shape == (window.height, window.width)
        covered[window.slices] += 1
    assert covered.min() >= 1
    assert covered[0, 0] == 1


def test_a_grid_goes_row_by_row():
    assert list(sliding_windows(5, 6, 4, 3)) == [
        Window(0, 0, 4, 4),
        Window(0, 2, 4, 4),
        Window(1, 0, 4, 4),
        Window(1, 2, 4, 4),
    ]
