import numpy as np
import pytest

from bdloss.inference.tta import D4, FLIPS, MODES, augment_prediction


def draw_batch(height=5, width=5):
    return np.random.default_rng(3).random((2, height, width, 3))


@pytest.mark.parametrize("mode", MODES)
def test_undo_takes_back_what_do_does(mode):
    batch = draw_batch()
    for do, undo in MODES[mode]:
        np.testing.assert_array_equal(undo(do(batch)), batch)


def test_flips_are_the_four_and_need_no_square():
    batch = draw_batch(4, 7)
    identity, left_right, up_down, both = (do(batch) for do, _ in FLIPS)
    np.testing.assert_array_equal(identity, batch)
    np.testing.assert_array_equal(left_right, batch[:, :, ::-1])
    np.testing.assert_array_equal(up_down, batch[:, ::-1])
    np.testing.assert_array_equal(both, batch[:, ::-1, ::-1])


def test_d4_is_all_eight():
    batch = draw_batch()
    images = [do(batch) for do, _ in D4]
    turned = [np.rot90(batch, quarters, axes=(1, 2)) for quarters in range(4)]
    mirrored = [image.swapaxes(1, 2) for image in turned]
    assert len({image.tobytes() for image in images}) == 8
    assert {image.tobytes() for image in images} == {
        image.tobytes() for image in turned + mirrored
    }


@pytest.mark.parametrize("mode", MODES)
def test_pointwise_model_does_not_notice(mode):
    batch = draw_batch()
    predict = augment_prediction(lambda batch: batch[..., :1] / 2, mode)
    maps = predict(batch)
    assert maps.dtype == np.float32
    np.testing.assert_allclose(maps, batch[..., :1] / 2, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_mean_of_the_maps_turned_back(mode):
    ramp = np.linspace(0, 1, 25).reshape(1, 5, 5, 1)
    maps = augment_prediction(lambda batch: ramp + 0 * batch[..., :1], mode)(
        draw_batch()
    )
    expected = np.mean([undo(ramp) for _, undo in MODES[mode]], axis=0)
    np.testing.assert_allclose(maps, np.repeat(expected, 2, axis=0), atol=1e-6)


@pytest.mark.parametrize(("mode", "calls"), [("none", 1), ("flips", 4), ("d4", 8)])
def test_model_gets_contiguous_batches(mode, calls):
    seen = []

    def predict(batch):
        seen.append(batch.flags.c_contiguous)
        return batch[..., :1]

    augment_prediction(predict, mode)(draw_batch())
    assert seen == [True] * calls


@pytest.mark.parametrize("mode", MODES)
def test_geometric_mean(mode):
    ramp = np.linspace(0, 1, 25).reshape(1, 5, 5, 1)
    predict = augment_prediction(lambda batch: ramp, mode, "geometric")
    maps = [undo(ramp) for _, undo in MODES[mode]]
    expected = np.prod(maps, axis=0) ** (1 / len(maps))
    np.testing.assert_allclose(predict(draw_batch()), expected, atol=1e-6)
    with pytest.raises(ValueError, match="arithmetic, geometric, got 'median'"):
        augment_prediction(np.asarray, mode, "median")


def test_unknown_mode():
    with pytest.raises(ValueError, match="none, flips, d4, got 'D8'"):
        augment_prediction(np.asarray, "D8")
