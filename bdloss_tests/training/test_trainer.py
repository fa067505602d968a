import re

import keras
import numpy as np
import pytest

from bdloss import losses, models
from bdloss.data.scenes import SceneData
from bdloss.training import weight_search
from bdloss.training.experiment import make_experiment
from bdloss.training.history import write_history
from bdloss.training.loss import LossSettings, make_loss
from bdloss.training.network import ModelSettings, build_network
from bdloss.training.run import make_trainer
from bdloss.training.schedules import (
    StageSettings,
    WeightSettings,
    learning_rate,
    reduced_rate,
    weight_callback,
)
from bdloss_tests.scenes import make_scene

SCENES = [SceneData(*make_scene(seed, 48, 64)) for seed in (1, 2)]


def prepare(
    stages=({"epochs": 3, "learning_rate": 1e-2},),
    validation=True,
    patches=None,
    **changes,
):
    cut = {"size": 32, "batch_size": 2, "steps": 2, "augment": "none"}
    experiment = make_experiment(
        {
            "model": {"filters": 2, "blocks": 1},
            "patches": {**cut, **(patches or {})},
            "stage": list(stages),
            **changes,
        }
    )
    keras.utils.set_random_seed(1)
    model = models.build_model("plain", filters=2, blocks=1)
    scenes = SCENES[1:] if validation else []
    fitted = make_trainer(experiment, model, SCENES[:1], scenes, ["town"], verbose=0)
    return fitted, experiment


@pytest.mark.parametrize(
    ("targets", "activation"),
    [
        (["house", "road"], "softmax"),
        (["house", "road", "contact"], "sigmoid"),
    ],
)
def test_a_network_of_several_maps_learns_them(targets, activation):
    scenes = []
    for seed in (1, 2):
        pixels, mask = make_scene(seed, 48, 64)
        pixels = np.dstack([pixels, pixels[..., 0]])
        if "road" in targets:
            road = np.roll(mask, 9, axis=1) & (mask == 0)
            pixels[..., 1] = np.where(road, 200, 60)
            mask = mask + 2 * road
        contact = None
        if "contact" in targets:
            contact = np.roll(mask == 1, 7, axis=0).astype(np.uint8)
            pixels[..., 3] = 200 * contact
        scenes.append(SceneData(pixels, mask, contact))
    keras.utils.set_random_seed(1)
    experiment = make_experiment(
        {
            "model": {"filters": 4, "blocks": 1, "activation": activation},
            "patches": {"size": 32, "batch_size": 4, "steps": 15},
            "fit": {"jit_compile": "off"},
            "stage": [{"epochs": 8, "learning_rate": 1e-2}],
        }
    )
    model = build_network(experiment.model, 4, targets)
    fitted = make_trainer(
        experiment, model, scenes[:1], scenes[1:], ["a"], 0, targets=targets
    )
    fitted.fit_until(8)
    assert fitted.rows[-1]["val_iou"] > 0.6
    pixels, maps = fitted.batches.validation[0]
    assert maps.shape[-1] == len(targets)
    found = model.predict_on_batch(pixels) >= 0.5
    counted = maps != 255
    assert (found == maps)[counted].mean() > 0.95
    assert fitted.examples().shape == (4, 32, 96, 3)


def test_contact_is_not_of_classes_that_exclude_each_other():
    settings = ModelSettings(activation="softmax")
    with pytest.raises(ValueError, match=r"needs model\.activation = sigmoid"):
        build_network(settings, 3, ["building", "contact"])


class Epochs(keras.callbacks.Callback):
    """Lists the epochs that have ended."""

    def __init__(self, fitted, ended):
        super().__init__()
        self.fitted, self.ended = fitted, ended

    def on_epoch_end(self, epoch, logs=None):
        assert self.fitted.epoch == epoch + 1
        self.ended.append(epoch + 1)


def rates(fitted):
    return [row["learning_rate"] for row in fitted.rows]


def test_plateau_lowers_the_rate_within_its_stage():
    stages = [
        {"epochs": 4, "learning_rate": 1e-2, "plateau": 2, "factor": 0.1},
        {"epochs": 1, "learning_rate": 5e-3},
    ]
    fitted, _ = prepare(stages)
    fitted.min_delta = 1e9  # no loss is better than the first
    fitted.fit_until(5)
    assert rates(fitted) == pytest.approx([1e-2, 1e-2, 1e-2, 1e-3, 5e-3])


STAGE = StageSettings(epochs=30, learning_rate=1.0, plateau=3, factor=0.1)


def rates_of(rows):
    return [reduced_rate(STAGE, rows[:n]) for n in range(len(rows) + 1)]


def test_plateau_does_not_compare_losses_of_different_weights():
    # Falling within each w, and each w has a larger loss than the one before.
    falling = [
        {"val_loss": 1.0 + w - 0.01 * i, "w": w} for w in (0.1, 0.5) for i in range(7)
    ]
    assert rates_of(falling) == [1.0] * 15
    unweighted = [{"val_loss": row["val_loss"]} for row in falling]
    assert rates_of(unweighted)[-1] == pytest.approx(0.01)  # compared, it falls twice


def test_plateau_waits_anew_when_the_weight_changes():
    flat = [{"val_loss": 1.0, "w": w} for w in (0.1, 0.1, 0.1, 0.5, 0.5, 0.5, 0.5)]
    # The first epoch of a w is its best; three without a better one lower the rate.
    assert rates_of(flat) == pytest.approx([*[1.0] * 7, 0.1])


def test_plateau_does_not_reset_the_rate_when_the_weight_changes():
    rows = [{"val_loss": 1.0, "w": w} for w in (0.1, 0.1, 0.1, 0.1, 0.5, 0.5)]
    assert rates_of(rows)[4:] == pytest.approx([0.1] * 3)


def test_grid_of_patches_is_an_epoch():
    fitted, _ = prepare(patches={"sampling": "grid", "steps": 0})
    steps, _ = fitted.steps()
    assert steps == 2  # 2 x 2 patches of 32 cover 48 x 64
    seen = {window for i in range(steps) for window in fitted.batches.train.windows(i)}
    corners = {(window.row, window.col) for _, window in seen}
    assert corners == {(0, 0), (0, 32), (16, 0), (16, 32)}
    random, _ = prepare(patches={"steps": 0})
    assert random.steps()[0] == round(48 * 64 / 32**2 / 2)


def test_loss_that_is_not_finite_stops_and_keeps_what_was_good():
    fitted, _ = prepare()
    kept = []

    class Spoil(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            kept.append(fitted.epoch)
            weights = self.model.get_weights()
            self.model.set_weights([w * np.nan for w in weights])

    rule = r"not finite in epoch 2, .*; .* fit\.clipnorm = "
    with pytest.raises(ValueError, match=rule) as e:
        fitted.fit_until(3, callbacks=[Spoil()])
    assert kept == [1]
    found = re.findall(r"town\[(\d+):(\d+), (\d+):(\d+)\]", str(e.value))
    windows = [np.s_[int(a) : int(b), int(c) : int(d)] for a, b, c, d in found]
    for window, mask in zip(windows, fitted.batches.train[0][1], strict=True):
        np.testing.assert_array_equal(SCENES[0].mask[window], mask[..., 0])


def test_validation_that_is_not_finite_stops_before_it_is_kept(monkeypatch):
    fitted, _ = prepare()
    monkeypatch.setattr(
        fitted.model, "evaluate", lambda *_, **__: {"loss": np.inf, "iou": 0.0}
    )
    kept = []
    with pytest.raises(ValueError, match="not finite in epoch 1, validation"):
        fitted.fit_until(3, callbacks=[Epochs(fitted, kept)])
    assert not kept


@pytest.mark.parametrize(
    ("choice", "compiled"),
    [
        ("auto", False),  # on a CPU, where it takes twice as long
        ("on", True),
        ("off", False),
    ],
)
def test_compiled_by_xla_where_it_is_faster(choice, compiled):
    fitted, experiment = prepare(fit={"jit_compile": choice})
    fitted._compile(experiment.stage[0])
    assert fitted.model.jit_compile == compiled


def test_new_stage_forgets_the_optimizer_of_the_one_before():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        fitted, _ = prepare([{"epochs": 1}, {"epochs": 1, "learning_rate": 2e-3}])
    finally:
        keras.config.set_dtype_policy("float32")
    fitted.fit_until(1)
    optimizer = fitted.model.optimizer
    optimizer.dynamic_scale.assign(2.0)
    fitted._renew_optimizer()
    assert float(optimizer.dynamic_scale) == optimizer.initial_scale
    assert float(optimizer.learning_rate) == pytest.approx(1e-3)
    assert {variable.name for variable in optimizer.variables if np.any(variable)} == {
        "dynamic_scale",
        "learning_rate",
    }


def test_gradients_are_clipped_if_asked():
    for clip, norm in ((0.5, 0.5), (0.0, None)):
        fitted, experiment = prepare(fit={"clipnorm": clip})
        fitted._compile(experiment.stage[0])
        assert fitted.model.optimizer.global_clipnorm == norm


@pytest.mark.parametrize(
    ("scores", "patience", "finished", "best"),
    [
        ([0.1, 0.5, 0.4, 0.3], 2, True, 2),
        ([0.1, 0.5, 0.4, 0.3], 3, False, 2),
        ([0.5, 0.1, 0.4, 0.3], 3, False, 1),  # the last stage began with epoch 3
        ([0.1, 0.5, 0.4, 0.3], 0, False, 2),
    ],
)
def test_patience_is_lost_in_the_last_stage(scores, patience, finished, best):
    fitted, _ = prepare([{"epochs": 2}, {"epochs": 9}], fit={"patience": patience})
    fitted.rows = [{"epoch": i + 1, "val_iou": s} for i, s in enumerate(scores)]
    assert (fitted.finished, fitted.best_epoch) == (finished, best)


def test_without_validation_nothing_may_look_at_it():
    for changes in (
        {"fit": {"patience": 1}},
        {"weight": {"policy": "search"}},
        {"stages": [{"plateau": 1}]},
    ):
        with pytest.raises(ValueError, match="there are none"):
            prepare(validation=False, **changes)
    fitted, _ = prepare(validation=False)
    fitted.rows = [{"epoch": 1, "loss": 0.1}, {"epoch": 2, "loss": 0.2}]
    assert fitted.best_epoch == 2


def test_measuring_a_step_leaves_everything_as_it_was():
    fitted, experiment = prepare()
    fitted._compile(experiment.stage[0])
    before = fitted.state()
    assert fitted.measure_step() > 0
    after = fitted.state()
    for part in ("network", "optimizer"):
        for old, new in zip(getattr(before, part), getattr(after, part), strict=True):
            np.testing.assert_array_equal(old, new)


def test_a_step_that_was_measured_is_not_traced_again():
    fitted, _ = prepare()
    traced = []
    train_step = fitted.model.train_step

    def count(data):
        traced.append(data)
        return train_step(data)

    fitted.model.train_step = count
    fitted.measure_step()
    measured = len(traced)
    fitted.fit_until(1)
    assert 0 < measured == len(traced)


def test_state_of_another_network_is_refused():
    fitted, _ = prepare()
    state = fitted.state()
    with pytest.raises(ValueError, match="that of another network"):
        fitted.restore(state._replace(network=state.network[1:]))


@pytest.mark.parametrize(
    ("policy", "weights"),
    [
        ({"policy": "constant", "start": 0.3}, [0.3, 0.3, 0.3]),
        ({"start": 0.1, "end": 0.5, "last": 2}, [0.1, 0.3, 0.5]),
        (
            {"policy": "steps", "values": [0.4, 1], "first": 1, "every": 1},
            [0.1, 0.4, 1],
        ),
    ],
)
def test_policies(policy, weights):
    callback = weight_callback(WeightSettings(**policy), "boundary")
    assert [callback.weight(epoch) for epoch in range(3)] == pytest.approx(weights)


@pytest.mark.parametrize("policy", ["search", "ramp", "steps", "constant"])
@pytest.mark.parametrize("extra", ["dice", "ss"])
def test_weight_of_other_losses_is_not_adjusted(policy, extra):
    experiment = make_experiment(
        {"loss": {"extra": extra}, "weight": {"policy": policy, "baseline": 0.4}}
    )
    assert not experiment.searches
    callback = weight_callback(experiment.weight, extra)
    assert {callback.weight(epoch) for epoch in range(40)} == {0.4}
    fitted, _ = prepare(loss={"extra": extra}, weight={"baseline": 0.4})
    assert float(fitted._loss.w.value) == pytest.approx(0.4)


def test_search_goes_on_with_the_best_branch(tmp_path, caplog):
    weight = {"policy": "search", "start": 0.2, "first": 1, "every": 3}
    weight |= {"values": [0.1, 0.5, 0.9], "probe_epochs": 2}
    fitted, experiment = prepare([{"epochs": 5, "learning_rate": 0.03}], weight=weight)
    kept = []
    caplog.set_level("INFO", "bdloss")
    weight_search.search_weights(
        fitted, experiment.weight, tmp_path, [Epochs(fitted, kept)]
    )
    # epoch 1; a search of two epochs; the rest; a search of the one that is left
    assert kept == [1, 3, 4, 5]
    rows = weight_search.read_search(tmp_path / "search.csv")
    assert len(rows) == 3 * 2 + 3 * 1
    for start, end in ((1, 3), (4, 5)):
        ends = [row for row in rows if (row["search"], row["epoch"]) == (start, end)]
        best = max(ends, key=lambda row: row["val_iou"])
        assert best["chosen"] == 1
        assert sum(row["chosen"] for row in ends) == 1
        assert fitted.rows[end - 1]["val_iou"] == best["val_iou"]
        assert fitted.rows[end - 1]["w"] == pytest.approx(best["weight"])
        said = f"w = {best['weight']} is best in epochs {start + 1} to {end}"
        assert said in caplog.text
    assert fitted.rows[3]["w"] == fitted.rows[2]["w"]
    assert (tmp_path / "search.png").read_bytes()[:4] == b"\x89PNG"
    assert not list(tmp_path.rglob("*.npz"))


def test_loss_is_made_from_the_settings():
    wide = LossSettings(extra="boundary", theta0=5, theta=7, pool="first")
    loss = make_loss(wide, 0.2)
    assert isinstance(loss.extra, losses.BoundaryLoss)
    assert (loss.extra.theta0, loss.extra.theta, loss.ignore) == (5, 7, 255)
    assert loss.extra.pool == "first"
    assert float(loss.w.value) == pytest.approx(0.2)
    for name in ("dice", "ss"):
        made = make_loss(LossSettings(extra=name, lam=0.2), 0.5)
        assert isinstance(made.extra, losses.EXTRAS[name])
        assert getattr(made.extra, "lam", 0.2) == 0.2
    assert make_loss(LossSettings(extra="none"), 0.5).extra is None
    with pytest.raises(FileNotFoundError, match="no such file of VGG19 weights"):
        make_loss(LossSettings(extra="vgg", vgg="none.h5"), 0.5)


@pytest.mark.parametrize(
    ("given", "theta", "batch"),
    [
        ({}, 9, True),  # the recommended loss
        ({"extra": "oriented", "theta": 5}, 5, True),
        ({"extra": "boundary"}, 5, False),  # the paper's
        ({"extra": "boundary", "theta": 7, "batch": True}, 7, True),
        ({"extra": "edge"}, 9, False),
        ({"extra": "none"}, 5, False),
    ],
)
def test_a_loss_brings_what_goes_with_it(given, theta, batch):
    settings = LossSettings(**given)
    loss = make_loss(settings, 0.2)
    assert (settings.theta, settings.batch, loss.batch) == (theta, batch, batch)
    assert settings.extra == given.get("extra", "oriented")
    assert getattr(loss.extra, "theta", theta) == theta
    assert LossSettings(**settings.model_dump()) == settings


def test_history_may_have_more_columns_than_it_began_with(tmp_path):
    path = tmp_path / "history.csv"
    write_history([{"epoch": 1}, {"epoch": 2, "w": 0.5}], path)
    assert path.read_text().split() == ["epoch,w", "1,", "2,0.5"]


STEEP = StageSettings(epochs=5, learning_rate=0.1, schedule="cosine")


def test_cosine_falls_to_zero_within_its_stage():
    schedule = learning_rate(STEEP, steps=10)
    values = [float(keras.ops.convert_to_numpy(schedule(step))) for step in (0, 25, 50)]
    assert values == pytest.approx([0.1, 0.05, 0.0], abs=1e-6)


@pytest.mark.parametrize("text", ["epoch,w\n1\n", "epoch,w\n1,x\n", "epoch\n1,2\n"])
def test_a_damaged_search_is_named(tmp_path, text):
    path = tmp_path / "search.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"damaged; give --fresh .*search\.csv"):
        weight_search.read_search(path)
