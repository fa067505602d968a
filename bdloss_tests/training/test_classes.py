"""Several classes, from the masks of a folder to the scores of a run."""

import json
from functools import partial

import cv2
import numpy as np
import pytest

from bdloss import models
from bdloss.constants import IGNORED
from bdloss.evaluation.scoring import score_classes, score_masks
from bdloss.training import run as training
from bdloss.training.experiment import make_experiment
from bdloss.training.loss import LossSettings, make_loss
from bdloss_tests.scenes import write_raster

NAMES = ("house", "road", "water")
CODES = (40, 7, 90)
INKS = np.array([(70, 70, 70), (190, 80, 70), (90, 170, 90), (40, 60, 160)])


def make_classes(seed, height, width, classes=3):
    """Return pixels and mask of a scene with blocks of classes, and rims ignored."""
    random = np.random.default_rng(seed)
    mask = np.zeros((height, width), np.uint8)
    for _ in range(height * width // 500):
        row, col = random.integers(0, (height - 8, width - 8))
        tall, wide = random.integers(8, 24, 2)
        mask[row : row + tall, col : col + wide] = random.integers(0, classes + 1)
    pixels = INKS[mask] + random.normal(0, 12, (height, width, 3))
    mask[:, :3] = IGNORED
    return np.clip(pixels, 0, 255).astype(np.uint8), mask


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    """Two scenes of three classes, and one that lacks the third."""
    root = tmp_path_factory.mktemp("town")
    codes = np.array([0, *CODES, *[0] * 252], np.uint8)
    codes[IGNORED] = IGNORED
    for seed, (name, classes) in enumerate((("a", 3), ("b", 3), ("c", 2)), 1):
        pixels, mask = make_classes(seed, 96, 128, classes)
        write_raster(root / "images" / f"{name}.tif", pixels)
        write_raster(root / "masks" / f"{name}.tif", codes[mask], nodata=IGNORED)
    return root


@pytest.fixture(
    scope="module",
    params=["sigmoid", pytest.param("softmax", marks=pytest.mark.slow)],
)
def run(request, town, tmp_path_factory):
    """A short training: its folder, what it returned, and its experiment."""
    experiment = make_experiment(
        {
            "dataset": {
                "root": str(town),
                "validation": 0.2,
                "test": ["c"],
                "classes": dict(zip(NAMES, CODES, strict=True)),
            },
            "model": {"filters": 8, "blocks": 2, "activation": request.param},
            "patches": {"size": 32, "batch_size": 4, "steps": 40, "workers": 1},
            "loss": {"class_weights": {"water": 2.0}},
            "fit": {"jit_compile": "off"},
            "stage": [{"epochs": 8, "learning_rate": 1e-2, "schedule": "cosine"}],
        }
    )
    out = tmp_path_factory.mktemp("runs") / "town"
    return out, training.train(experiment, out, verbose=0), experiment


def test_a_short_training_tells_three_classes_apart(run):
    _, result, _ = run
    scores = result["validation"]["classes"]
    assert list(scores) == list(NAMES)
    assert min(scores[name]["iou"] for name in NAMES) > 0.9


def test_a_class_that_an_image_lacks_costs_nothing(run):
    _, result, _ = run
    whole, classes = result["test"], result["test"]["classes"]
    assert not classes["water"]["iou"]  # none, or a few pixels of it
    known = [one["iou"] for one in classes.values() if one["iou"] is not None]
    assert whole["iou"] == pytest.approx(np.mean(known))
    assert classes["house"]["iou"] > 0.9


def test_a_model_knows_its_classes(run):
    out, result, experiment = run
    assert json.loads((out / "metrics.json").read_text()) == result
    predictor = models.load_predictor(out / "model.keras")
    assert predictor.classes == predictor.targets == NAMES
    assert predictor.colours == tuple(experiment.dataset.class_colours.values())
    picture = cv2.imread(str(out / "samples.png"))[..., ::-1]
    for colour in predictor.colours:  # in truth, prediction and legend
        ink = np.array([*bytes.fromhex(colour[1:])])
        assert (picture == ink).all(axis=-1).sum() > 300


def test_absent_classes_neither_raise_nor_lower_a_loss():
    random = np.random.default_rng(1)
    true = random.integers(0, 2, (2, 16, 16, 3)).astype(np.float32)
    pred = random.random((2, 16, 16, 3)).astype(np.float32)
    true[..., 2], pred[..., 2] = 0, 0
    for extra in ("boundary", "dice", "none"):
        loss = partial(make_loss, LossSettings(extra=extra), 0.5)
        two = float(loss(["a", "b"])(true[..., :2], pred[..., :2]))
        three = float(loss(["a", "b", "c"])(true, pred))
        assert 3 * three == pytest.approx(2 * two, rel=1e-5)


def test_weights_are_of_classes_by_name():
    random = np.random.default_rng(1)
    true = random.integers(0, 2, (2, 16, 16, 3)).astype(np.float32)
    pred = random.random((2, 16, 16, 3)).astype(np.float32)
    weights = LossSettings(class_weights={"b": 3.0, "contact": 0.0})
    found = make_loss(weights, 0.5, ["a", "b", "contact"])(true, pred)
    one, other = (
        make_loss(LossSettings(), 0.5)(true[..., i : i + 1], pred[..., i : i + 1])
        for i in range(2)
    )
    assert float(found) == pytest.approx((float(one) + 3 * float(other)) / 4, rel=1e-5)


def test_a_weight_of_a_class_that_is_none_is_named():
    settings = {"loss": {"class_weights": {"road": 1.0}}}
    with pytest.raises(ValueError, match=r"are of building, contact, got 'road'"):
        make_experiment(settings)


def test_scores_of_classes_are_those_of_each_against_all_else():
    pairs = [
        (make_classes(seed, 60, 50)[1], make_classes(seed + 1, 60, 50, 2)[1])
        for seed in (1, 5)
    ]
    scores = score_classes(pairs, NAMES)
    for number, name in enumerate(NAMES, 1):
        alone = [
            [np.where(mask == IGNORED, IGNORED, mask == number) for mask in pair]
            for pair in pairs
        ]
        assert scores.classes[name] == score_masks(alone)
    whole, classes = scores.all, scores.classes.values()
    assert whole.iou == pytest.approx(np.mean([one.iou for one in classes]))
    known = [(t != IGNORED) & (p != IGNORED) for t, p in pairs]
    right = [(t == p)[k] for (t, p), k in zip(pairs, known, strict=True)]
    assert whole.accuracy == pytest.approx(np.mean(np.concatenate(right)))
    assert (whole.images, whole.pixels) == (2, sum(k.sum() for k in known))
    assert scores.as_json()["classes"]["road"] == scores.classes["road"].as_json()
