import keras
import numpy as np
import pytest
from keras import ops

from bdloss import losses
from bdloss.losses import CombinedLoss, VGGLoss
from bdloss.losses.vgg import LAYERS, MEAN, VGGFeatures
from bdloss_tests.drawing import HOUSE, as_batch

FIRST = ["block1_conv1", "block2_conv1"]


@pytest.fixture(scope="module")
def vgg19():
    return keras.applications.VGG19(
        include_top=False, weights=None, input_shape=(None, None, 3)
    )


@pytest.fixture(scope="module")
def files(vgg19, tmp_path_factory):
    """The same weights in the three ways that Keras writes them."""
    folder = tmp_path_factory.mktemp("weights")
    vgg19.save_weights(folder / "vgg19.weights.h5")
    vgg19.save(folder / "vgg19.h5")
    vgg19.save(folder / "vgg19.keras")
    return folder


@pytest.mark.parametrize("name", ["vgg19.weights.h5", "vgg19.h5", "vgg19.keras"])
def test_features_are_those_of_vgg19_for_a_grey_picture(vgg19, files, name):
    maps = np.random.default_rng(0).random((2, 17, 21, 1)).astype("float32")
    outputs = [vgg19.get_layer(layer).output for layer in LAYERS]
    pictures = keras.applications.vgg19.preprocess_input(
        255 * np.repeat(maps, 3, axis=-1)
    )
    expected = keras.Model(vgg19.input, outputs)(pictures)
    found = VGGFeatures(files / name)(maps)
    assert [tuple(feature.shape) for feature in found] == [
        (2, 17, 21, 64),
        (2, 8, 10, 128),
        (2, 4, 5, 256),
    ]
    for ours, theirs in zip(found, expected, strict=True):
        ours, theirs = (ops.convert_to_numpy(feature) for feature in (ours, theirs))
        np.testing.assert_allclose(255 * ours, theirs, rtol=1e-4, atol=1e-4)
        assert theirs.max() > 0.1


def test_mean_is_that_of_imagenet():
    black = np.zeros((1, 1, 1, 3), "float32")
    assert -keras.applications.vgg19.preprocess_input(black).ravel() == pytest.approx(
        MEAN
    )


def test_network_is_frozen_and_no_deeper_than_needed():
    features = VGGFeatures(None, FIRST)
    assert not features.network.trainable_variables
    assert features.network.layers[-1].name == "block2_conv1"


@pytest.mark.parametrize(
    "setting",
    [
        (keras.config.set_dtype_policy, keras.config.dtype_policy, "mixed_float16"),
        (
            keras.config.set_image_data_format,
            keras.config.image_data_format,
            "channels_first",
        ),
    ],
    ids=["mixed precision", "channels first"],
)
def test_global_settings_change_nothing(files, setting):
    change, current, value = setting
    expected = VGGFeatures(files / "vgg19.h5")(as_batch(HOUSE))
    before = current()
    change(value)
    try:
        found = VGGFeatures(files / "vgg19.h5")(as_batch(HOUSE))
    finally:
        change(before)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(
            ops.convert_to_numpy(ours), ops.convert_to_numpy(theirs)
        )


def test_description_of_the_extractor_is_saved_with_a_model(files, tmp_path):
    extractor = VGGFeatures(files / "vgg19.h5", FIRST)
    model = keras.Sequential(
        [
            keras.Input((None, None, 1)),
            keras.layers.Conv2D(1, 3, padding="same", activation="sigmoid"),
        ]
    )
    model.compile("sgd", CombinedLoss(VGGLoss(extractor), w=0.5), jit_compile=False)
    x = as_batch(HOUSE)
    weights = [ops.convert_to_numpy(w).copy() for w in extractor.network.weights]
    model.fit(x, x, verbose=0)
    model.save(tmp_path / "model.keras")
    assert (tmp_path / "model.keras").stat().st_size < 200_000  # no weights of VGG19
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.loss.extra.extractor.get_config() == {
        "weights": str(files / "vgg19.h5"),
        "layers": FIRST,
    }
    assert loaded.evaluate(x, x, verbose=0) == pytest.approx(
        model.evaluate(x, x, verbose=0)
    )
    for now, then in zip(extractor.network.weights, weights, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(now), then)


def test_loss_takes_the_path_of_a_weights_file(files):
    loss = losses.get("vgg", extractor=files / "vgg19.weights.h5")
    assert loss.extractor.layers == list(LAYERS)
    assert float(loss(as_batch(HOUSE), as_batch(HOUSE))) == 0
    assert float(loss(as_batch(HOUSE), as_batch(1 - HOUSE))) > 1e-4


def test_without_network_one_line_says_where_to_put_the_file(monkeypatch, tmp_path):
    def fail(*arguments, **settings):
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.utils, "get_file", fail)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError) as error:
        VGGLoss()
    (line,) = str(error.value).splitlines()
    assert "put https://storage.googleapis.com/" in line
    assert f"_notop.h5 into {tmp_path / 'models'}" in line


def test_file_of_something_else(tmp_path):
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    other.save(tmp_path / "other.keras")
    other.save(tmp_path / "other.h5")
    (tmp_path / "text.h5").write_text("no weights")
    for name in ("other.keras", "other.h5", "text.h5"):
        with pytest.raises(ValueError, match=f"not a Keras file of .*{name}"):
            VGGFeatures(tmp_path / name)


@pytest.mark.parametrize(
    ("make", "error", "rule"),
    [
        (
            lambda: VGGFeatures("nowhere.h5"),
            FileNotFoundError,
            "no such file of VGG19 weights: nowhere.h5",
        ),
        (
            lambda: VGGFeatures(None, ["block1_conv3"]),
            ValueError,
            "layers must be among block1_conv1, .* got block1_conv3",
        ),
        (lambda: VGGFeatures(None, []), ValueError, "layers must be among .* got none"),
        (
            lambda: VGGFeatures(None)(as_batch(HOUSE[:3])),
            ValueError,
            r"at least 4 x 4 pixels, got shape \(1, 3, 9, 1\)",
        ),
    ],
)
def test_bad_arguments(make, error, rule):
    with pytest.raises(error, match=rule):
        make()
