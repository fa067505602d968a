import numpy as np
import pytest
from keras import ops
from scipy import ndimage

from bdloss.losses import OrientedBoundaryLoss, boundary_loss, oriented_boundary_loss
from bdloss.losses.oriented import (
    extract_faces,
    overlap_faces,
    soft_oriented_f1,
    spread,
)
from bdloss_tests.drawing import FIELD, HOUSE, as_batch, draw, smooth_masks
from bdloss_tests.gradients import gradient

BLOCK = np.zeros((32, 32), np.float32)
BLOCK[8:24, 8:24] = 1


def score_plainly(true, pred, theta, smooth):
    """The score of two maps of shape `(height, width)`, by SciPy in float64."""
    both = total = 0.0
    for axis in (0, 1):
        for step in (1, -1):
            falls = []
            for y in (true, pred):
                fall = np.maximum(y - np.roll(y, step, axis), 0)
                edge = [slice(None), slice(None)]
                edge[axis] = 0 if step == 1 else -1
                fall[tuple(edge)] = 0
                falls.append(
                    ndimage.uniform_filter(fall, theta, mode="constant", cval=0)
                )
            both += (falls[0] * falls[1]).sum()
            total += (falls[0] ** 2 + falls[1] ** 2).sum()
    return (2 * theta * both + smooth) / (theta * total + smooth)


@pytest.mark.parametrize("theta", [1, 3, 5, 9])
@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_score_is_that_of_scipy(theta, smooth):
    for seed in range(12):
        true, pred = (mask.astype(float) for mask in smooth_masks(seed, 19, 24))
        soft = ndimage.gaussian_filter(pred, 1.0)
        expected = score_plainly(true, soft, theta, smooth)
        found = soft_oriented_f1(
            as_batch(true).astype("float32"),
            as_batch(soft).astype("float32"),
            theta,
            smooth,
        )
        assert float(found[0, 0]) == pytest.approx(expected, abs=1e-5)


def test_classes_are_scored_one_by_one():
    true, pred = (
        np.stack([one, other], -1)[None].astype("float32")
        for one, other in zip(
            smooth_masks(1, 20, 20), smooth_masks(2, 20, 20), strict=True
        )
    )
    both = ops.convert_to_numpy(soft_oriented_f1(true, pred))
    for index in (0, 1):
        part = slice(index, index + 1)
        alone = soft_oriented_f1(true[..., part], pred[..., part])
        assert both[0, index] == pytest.approx(float(alone[0, 0]), abs=1e-6)


def test_faces_look_away_from_the_house():
    faces = [
        ops.convert_to_numpy(face)[0, ..., 0] for face in extract_faces(as_batch(HOUSE))
    ]
    below, above, right, left = faces
    np.testing.assert_array_equal(np.argwhere(below)[:, 0], [6] * 5)
    np.testing.assert_array_equal(np.argwhere(above)[:, 0], [2] * 5)
    np.testing.assert_array_equal(np.argwhere(right)[:, 1], [6] * 5)
    np.testing.assert_array_equal(np.argwhere(left)[:, 1], [2] * 5)


def test_a_window_spreads_all_of_a_pixel():
    dot = np.zeros((1, 9, 9, 1), np.float32)
    dot[0, 4, 4] = 1
    found = ops.convert_to_numpy(spread(dot, 5))[0, ..., 0]
    np.testing.assert_allclose(found[2:7, 2:7], 1 / 25)
    assert found.sum() == pytest.approx(1)
    weights = np.random.default_rng(0).random(dot.shape).astype("float32")
    slope = gradient(lambda y: ops.sum(ops.multiply(spread(y, 5), weights)), dot)
    np.testing.assert_allclose(
        slope, ops.convert_to_numpy(spread(weights, 5)), atol=1e-6
    )


def overlap_plainly(true, pred, theta, valid):
    """The sums of faces, which the backend differentiates by itself."""
    both = each = 0.0
    faces = extract_faces(true, valid), extract_faces(pred, valid)
    for a, b in zip(*faces, strict=True):
        a, b = (
            ops.multiply(spread(face, theta), 1 if valid is None else valid)
            for face in (a, b)
        )
        both += ops.sum(a * b, axis=(1, 2))
        each += ops.sum(a * a + b * b, axis=(1, 2))
    return ops.stack([both, each])


@pytest.mark.parametrize("classes", [1, 2])
@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("of_truth", [False, True])
def test_gradient_is_that_of_the_sums(classes, ignored, of_truth):
    rng = np.random.default_rng(classes)
    shape = (3, 11, 14, classes)
    known, y = (rng.random(shape).astype("float32") for _ in range(2))
    y[:, 4:7] = 0.5  # nothing falls there
    valid = ops.cast(rng.random(shape) > 0.1, "float32") if ignored else None
    weights = rng.random((2, 3, classes)).astype("float32")

    def slope(sums):
        def total(y):
            maps = (y, known) if of_truth else (known, y)
            return ops.sum(ops.multiply(sums(*maps, 5, valid), weights))

        return gradient(total, y)

    plain = slope(overlap_plainly)
    np.testing.assert_allclose(slope(overlap_faces), plain, atol=1e-5)
    assert np.abs(plain).max() > 0.01


def loss(true, pred, **settings):
    return float(oriented_boundary_loss(true[None], pred[None], **settings)[0])


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("flipped", [False, True])
def test_loss_and_gradient_turn_with_the_image(turns, flipped):
    def turn(image):
        image = np.rot90(image, turns, axes=(0, 1))
        return np.ascontiguousarray(image[:, ::-1] if flipped else image)

    true, noise = smooth_masks(3, 21, 26)
    true = true.astype("float32")
    pred = ndimage.gaussian_filter(noise.astype("float32"), 1)
    whole = oriented_boundary_loss

    def total(true):
        return lambda pred: ops.sum(whole(true[None], pred[None]))

    assert loss(turn(true), turn(pred)) == pytest.approx(loss(true, pred), abs=1e-6)
    slope = gradient(total(true), pred)
    turned = gradient(total(turn(true)), turn(pred))
    np.testing.assert_allclose(turned, turn(slope), atol=1e-6)
    assert np.abs(slope).max() > 1e-3


@pytest.mark.parametrize("theta", [3, 5, 7, 9])
@pytest.mark.parametrize("axis", [0, 1])
def test_loss_rises_with_each_pixel_that_a_house_is_moved(theta, axis):
    values = [
        loss(BLOCK, np.roll(BLOCK, shift, axis), theta=theta)
        for shift in range(theta // 2 + 1)
    ]
    assert values[0] == 0
    assert (np.diff(values) > 0.05).all()


def test_a_moved_house_by_hand():
    # Of a wall of 16 pixels the window overlaps by 3 of 5 columns, of the walls along
    # the shift by 14 rows and less at their ends: worked out as sums of overlaps.
    moved = np.roll(BLOCK, 2, axis=1)

    def overlap(shift, length):
        return np.convolve(np.convolve(np.ones(length), np.ones(5)), np.ones(5))[
            shift + 4 : shift + 4 + length
        ].sum()

    def row(y):  # a wall spread along itself
        return np.convolve(y, np.ones(5))

    wall = np.ones(16)
    along = (row(wall) ** 2).sum()
    ahead = np.pad(wall, (2, 0)), np.pad(wall, (0, 2))
    beside = (row(ahead[0]) * row(ahead[1])).sum()
    across = (5 - 2) * along + 5 * beside  # two walls of either kind
    expected = 1 - (2 * 2 * across / 125 + 1) / (2 * 2 * 2 * 5 * along / 125 + 1)
    assert loss(BLOCK, moved, theta=5) == pytest.approx(expected, abs=1e-5)
    assert 0.2 < expected < 0.24
    assert float(boundary_loss(BLOCK[None], moved[None])[0]) == pytest.approx(0)


def with_teeth(width):
    """The block with teeth on its upper wall, as wide as the gaps between them."""
    toothed = BLOCK.copy()
    for left in range(8, 24, 2 * width):
        toothed[8 - width : 8, left : left + width] = 1
    return toothed


@pytest.mark.parametrize(("width", "least"), [(1, 0.06), (2, 0.07)])
def test_teeth_cost_where_the_boundary_loss_sees_none(width, least):
    toothed = with_teeth(width)
    assert float(boundary_loss(BLOCK[None], toothed[None])[0]) < 0.01
    assert loss(BLOCK, toothed, theta=5) > least
    moved = BLOCK.copy()
    moved[8 - width : 8, 8:24] = 1
    for theta in (5, 9):  # half of the wall is moved
        assert loss(BLOCK, toothed, theta=theta) > loss(BLOCK, moved, theta=theta) / 2


def test_a_hollow_house_has_twice_the_boundary():
    hollow = BLOCK.copy()
    hollow[10:22, 10:22] = 0
    assert float(boundary_loss(BLOCK[None], hollow[None])[0]) < 0.2
    # Its inner walls stand against nothing, for they look inwards.
    outer, inner = 4 * 16, 4 * 12
    expected = 1 - 2 * outer / (2 * outer + inner)
    assert loss(BLOCK, hollow, smooth=0.0) == pytest.approx(expected, abs=0.02)


def test_a_house_where_none_is_and_none_where_one_is():
    assert loss(FIELD, FIELD) == loss(HOUSE, HOUSE) == 0
    assert loss(FIELD, HOUSE) == loss(HOUSE, FIELD) > 0.8
    assert loss(FIELD, FIELD, smooth=0.0) == 0


def test_ignored_pixels_make_no_faces():
    true = draw(
        """
        .......
        ..###??
        ..###??
        ..###??
        .......
        """
    )
    known = np.where(true == 255, 1, true)  # as if the house went on to the edge
    for seed in range(5):
        pred = np.random.default_rng(seed).random(true.shape).astype("float32")
        other = np.where(true == 255, np.float32(0.3), pred)
        assert loss(true, pred, ignore=255) == pytest.approx(
            loss(true, other, ignore=255), abs=1e-6
        )
    assert loss(true, np.where(true == 255, 0, true), ignore=255) == 0
    assert loss(true, known, ignore=255) == 0


def test_an_edge_that_nobody_knows_is_soft_and_not_a_comb():
    """Of walls at two places a comb is no better a guess than either of them."""
    walls = [BLOCK, np.roll(BLOCK, 2, axis=1)]
    comb = BLOCK.copy()
    for wall in (slice(8, 10), slice(24, 26)):
        comb[8:24, wall] = np.arange(8, 24)[:, None] % 4 < 2

    def expected(pred, of):
        return np.mean([float(of(wall[None], pred[None])[0]) for wall in walls])

    assert expected(comb, boundary_loss) < 0.01
    assert expected(comb, oriented_boundary_loss) > expected(
        walls[0], oriented_boundary_loss
    )
    between = np.mean(walls, 0).astype("float32")
    assert expected(between, oriented_boundary_loss) < expected(
        walls[0], oriented_boundary_loss
    )


@pytest.mark.parametrize("theta", [0, 2, -1, 2.5])
def test_a_window_has_a_pixel_in_its_middle(theta):
    with pytest.raises(ValueError, match="theta must be an odd number of pixels"):
        OrientedBoundaryLoss(theta=theta)
    with pytest.raises(ValueError, match="theta must be an odd number of pixels"):
        loss(HOUSE, HOUSE, theta=theta)
