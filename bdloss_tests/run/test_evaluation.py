import numpy as np
import pytest

from bdloss.run.evaluation import score_masks
from bdloss_tests.drawing import FIELD, HOUSE


def test_iou_is_pooled_and_bf1_a_mean_over_images_with_a_boundary():
    moved = np.roll(HOUSE, 1, axis=1)
    scores = score_masks([(HOUSE, moved), (HOUSE, FIELD), (FIELD, FIELD)])
    assert scores["iou"] == pytest.approx(20 / (30 + 25))
    assert scores["bf1_3"] == pytest.approx((1 + 0) / 2)
    assert scores["accuracy"] == pytest.approx(1 - (10 + 25) / (3 * 72))
    assert (scores["images"], scores["images_with_boundary"]) == (3, 2)


def test_pixels_masked_in_the_prediction_do_not_count():
    pred = HOUSE.copy()
    pred[:, 4:] = 255
    assert score_masks([(HOUSE, pred)])["iou"] == 1


def test_scores_that_nothing_speaks_for_are_none():
    scores = score_masks([(FIELD, FIELD)])
    assert scores["iou"] is None
    assert scores["bf1_3"] is None
    assert scores["accuracy"] == 1
