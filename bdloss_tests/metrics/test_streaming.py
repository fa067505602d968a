import math

import keras
import numpy as np
import pytest
from keras import ops

from bdloss.metrics.boundary_iou import (
    BoundaryIoUCounts,
    boundary_iou,
    count_boundary_iou,
)
from bdloss.metrics.scores import Counts, add_counts, boundary_f1, count_pixels
from bdloss.metrics.streaming import BoundaryF1, BoundaryIoU, IoU
from bdloss_tests.drawing import CITY, FIELD, HOUSE, as_batch, draw, smooth_masks


def test_iou_while_training_is_the_pooled_one():
    rng = np.random.default_rng(0)
    metric, counts = IoU(0.4, ignore=255), Counts()
    for _ in range(3):
        true = rng.choice([0, 1, 255], (2, 7, 5, 1)).astype("uint8")
        pred = rng.random((2, 7, 5, 1)).astype("float32")
        metric.update_state(true, pred)
        counts = add_counts(counts, count_pixels(true, pred >= 0.4, ignore=255))
    assert float(ops.convert_to_numpy(metric.result())) == pytest.approx(counts.iou)


@pytest.mark.parametrize("settings", [{}, {"connectivity": 8, "image_edge": True}])
@pytest.mark.parametrize("tolerance", [1, 3, 4.5])
def test_bf1_while_training_is_that_of_the_images(settings, tolerance):
    metric = BoundaryF1(tolerance, threshold=0.4, ignore=255, **settings)
    scores = []
    for seed in range(3):
        true, pred = (mask.astype("float32") for mask in smooth_masks(seed, 37, 45))
        true[20:24, 5:20] = 255
        blank = np.zeros_like(true)
        true, pred = np.stack([true, blank, true]), np.stack([pred, blank, blank])
        metric.update_state(true[..., None], np.where(pred, 0.4, 0.39)[..., None])
        scores += [
            boundary_f1(t, p, tolerance, ignore=255, **settings).f1
            for t, p in zip(true, pred, strict=True)
        ]
    known = [score for score in scores if not math.isnan(score)]
    assert 0 < np.mean(known) < 1
    assert float(metric.result()) == pytest.approx(np.mean(known), abs=1e-6)
    assert float(metric.count) == len(known) == 6
    metric.reset_state()
    assert float(metric.result()) == float(metric.count) == 0


def test_bf1_of_classes_is_their_mean():
    true, pred = smooth_masks(4, 30, 41)
    classes = np.stack([true, pred, np.zeros_like(true)], -1)[None]
    others = np.stack([pred, true, np.zeros_like(true)], -1)[None]
    metric = BoundaryF1()
    metric.update_state(classes, others.astype("float32"))
    assert float(metric.result()) == pytest.approx(boundary_f1(true, pred).f1)
    assert float(metric.count) == 2


@pytest.mark.parametrize("distance", [1, 3, 6, 50])
def test_boundary_iou_while_training_is_the_pooled_one(distance):
    metric, counts = BoundaryIoU(0.4, distance, ignore=255), BoundaryIoUCounts()
    for seed in range(3):
        true, pred = (mask.astype("float32") for mask in smooth_masks(seed, 37, 45))
        true[20:24, 5:20] = 255
        blank = np.zeros_like(true)
        true, pred = np.stack([true, blank, true]), np.stack([pred, blank, blank])
        metric.update_state(true[..., None], np.where(pred, 0.4, 0.39)[..., None])
        for t, p in zip(true, pred, strict=True):
            image = count_boundary_iou(t, p, distance, ignore=255)
            counts = add_counts(counts, image)
    assert 0 < counts.iou < 1
    assert float(metric.result()) == pytest.approx(counts.iou, abs=1e-6)
    metric.reset_state()
    assert float(metric.result()) == 0


@pytest.mark.parametrize(
    ("y_true", "y_pred"),
    [
        (HOUSE, HOUSE),
        (HOUSE, np.roll(HOUSE, 1, 1)),
        (HOUSE, FIELD),
        (CITY, HOUSE),
        (draw("?.##.#"), draw("####.#")),
        (draw(".###??."), draw(".###...")),
    ],
    ids=["same", "shifted", "missed", "no boundary", "beside ignored", "ends ignored"],
)
def test_boundary_iou_of_drawn_masks(y_true, y_pred):
    metric = BoundaryIoU(distance=2, ignore=255)
    metric.update_state(as_batch(y_true), as_batch(y_pred))
    expected = boundary_iou(y_true, y_pred, distance=2, ignore=255)
    assert float(metric.result()) == pytest.approx(expected)


def test_boundary_iou_of_classes_is_pooled():
    true, pred = smooth_masks(4, 30, 41)
    classes = np.stack([true, pred, np.zeros_like(true)], -1)[None]
    others = np.stack([pred, pred, np.zeros_like(true)], -1)[None]
    metric = BoundaryIoU()
    metric.update_state(classes, others.astype("float32"))
    counts = count_boundary_iou(true, pred), count_boundary_iou(pred, pred)
    assert float(metric.result()) == pytest.approx(add_counts(*counts).iou)


@pytest.mark.parametrize("kind", [IoU, BoundaryIoU])
def test_classes_that_were_seen_count_alike_and_contact_does_not(kind):
    true, pred = smooth_masks(4, 30, 41)
    nothing = np.zeros_like(true)
    classes = np.stack([true, pred, nothing, true], -1)[None]
    others = np.stack([pred, pred, nothing, nothing], -1)[None].astype("float32")
    alone, metric = kind(), kind(classes=3)
    alone.update_state(classes[..., :1], others[..., :1])
    metric.update_state(classes, others)
    assert float(metric.result()) == pytest.approx((float(alone.result()) + 1) / 2)
    assert kind.from_config(metric.get_config()).classes == 3


def test_bf1_is_of_the_classes_alone():
    true, pred = smooth_masks(4, 30, 41)
    classes = np.stack([true, pred, true], -1)[None]
    others = np.stack([pred, pred, np.zeros_like(true)], -1)[None].astype("float32")
    metric, expected = BoundaryF1(classes=2), BoundaryF1()
    metric.update_state(classes, others)
    expected.update_state(classes[..., :2], others[..., :2])
    assert float(metric.result()) == float(expected.result()) > 0.5


@pytest.mark.parametrize("jit_compile", [False, True])
def test_bf1_runs_in_compiled_steps_of_any_size(jit_compile):
    pixels = keras.Input((None, None, 1))
    model = keras.Model(pixels, keras.layers.Rescaling(1.0)(pixels))
    metrics = [BoundaryF1(), BoundaryIoU(), IoU()]
    model.compile(loss="mse", metrics=metrics, jit_compile=jit_compile)
    true, pred = (
        mask.astype("float32")[None, ..., None] for mask in smooth_masks(6, 29, 38)
    )
    logs = model.evaluate(pred, true, return_dict=True, verbose=0)
    expected = boundary_f1(true[0, ..., 0], pred[0, ..., 0]).f1
    assert logs["bf1"] == pytest.approx(expected, abs=1e-6)
    expected = boundary_iou(true[0, ..., 0], pred[0, ..., 0])
    assert logs["boundary_iou"] == pytest.approx(expected, abs=1e-6)
    assert logs["iou"] == pytest.approx(count_pixels(true, pred).iou, abs=1e-6)


def test_bf1_metric_comes_back_from_its_settings():
    metric = BoundaryF1(5, 0.3, 8, True, 255, "bf1_5")
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(metric)
    )
    assert isinstance(again, BoundaryF1)
    assert again.get_config() == metric.get_config()


def test_boundary_iou_metric_comes_back_from_its_settings():
    metric = BoundaryIoU(0.3, 5, 255, "biou_5")
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(metric)
    )
    assert isinstance(again, BoundaryIoU)
    assert again.get_config() == metric.get_config()


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        (lambda: BoundaryF1(tolerance=-1), "tolerance must be above 0"),
        (lambda: BoundaryF1(connectivity=6), "connectivity must be 4 or 8, got 6"),
        (lambda: BoundaryIoU(distance=0), "distance must be .* from 1, got 0"),
    ],
)
def test_bad_arguments(call, rule):
    with pytest.raises(ValueError, match=rule):
        call()


@pytest.mark.parametrize("metric", [IoU, BoundaryF1, BoundaryIoU])
def test_metrics_are_saved_under_the_name_of_the_package(metric):
    saved = keras.saving.serialize_keras_object(metric())
    assert saved["registered_name"] == f"bdloss>{metric.__name__}"


def test_batches_of_other_shapes_are_refused_not_stretched():
    two, one = np.ones((2, 8, 9, 1), "float32"), np.ones((1, 8, 9, 1), "float32")
    for metric in (IoU(), BoundaryF1(), BoundaryIoU()):
        for y_true, y_pred in ((two, one), (one[..., 0], one)):
            with pytest.raises(ValueError, match="must have the same shape"):
                metric.update_state(y_true, y_pred)


def test_what_is_not_0_is_building_while_training_too():
    metric = IoU(ignore=7)
    true = np.array([[[255], [255], [0], [7]]], "uint8")
    metric.update_state(true, np.array([[[0.9], [0.1], [0.9], [0.9]]], "float32"))
    assert float(metric.result()) == pytest.approx(1 / 3)
