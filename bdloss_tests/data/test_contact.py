import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from bdloss.data.contact import contact_map


def draw_labels(text):
    return np.array([[int(mark) for mark in row] for row in text.split()])


@pytest.mark.parametrize(
    ("radius", "expected"),
    [
        pytest.param(1, "0011000000 0011000000 0000000000", id="a wall"),
        pytest.param(2, "0111101100 0111101100 0011000000", id="a gap of two pixels"),
    ],
)
def test_contact_lies_on_shared_walls_and_in_narrow_gaps(radius, expected):
    labels = draw_labels("1112220033 1112220033 0000000003")
    np.testing.assert_array_equal(contact_map(labels, radius), draw_labels(expected))


@given(
    arrays(np.int32, (11, 14), elements=st.sampled_from([0, 0, 0, 1, 2, 70_000])),
    st.integers(1, 6),
)
@settings(max_examples=60, deadline=None)
def test_contact_is_where_two_buildings_are_near(labels, radius):
    near = sum(
        (ndimage.distance_transform_edt(labels != number) <= radius).astype(int)
        for number in (1, 2, 70_000)
        if (labels == number).any()
    )
    np.testing.assert_array_equal(contact_map(labels, radius), np.greater(near, 1))


@pytest.mark.parametrize("radius", [0, -2])
def test_a_radius_is_a_pixel_or_more(radius):
    with pytest.raises(ValueError, match=f"within 1 pixel or more, got {radius}"):
        contact_map(draw_labels("12"), radius)
