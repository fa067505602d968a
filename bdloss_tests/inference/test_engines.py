from dataclasses import replace

import keras
import numpy as np
import pytest
import rasterio

from bdloss import models
from bdloss.inference import engines, predict_raster
from bdloss_tests.inference.stand_ins import PREDICTOR
from bdloss_tests.scenes import make_scene, write_raster

pytest.importorskip("onnxruntime")
pytest.importorskip("tf2onnx")

SETTINGS = {"overlap": 16, "batch": 2}
WINDOWS = 1000  # as many as are worth an engine


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.keras"
    keras.utils.set_random_seed(3)
    network = models.build_model("plain", filters=4, blocks=2)
    pixels, _ = make_scene(1, 64, 64)
    for _ in range(20):  # batch norm comes to know them
        network(pixels[np.newaxis], training=True)
    models.save_model(network, path, {"window": 32, "multiple": 4, "threshold": 0.5})
    return models.load_predictor(path)


@pytest.fixture
def image(tmp_path):
    return write_raster(tmp_path / "town.tif", make_scene(3, 150, 90)[0])


def read(path):
    with rasterio.open(path) as source:
        return source.read(1).astype(int), source.tags()["engine"]


def both(image, predictor, folder, engine):
    """Predict mask and probabilities."""
    folder.mkdir(exist_ok=True)
    paths = folder / "mask.tif", folder / "prob.tif"
    predict_raster(
        *(image, predictor, paths[0]),
        probability_path=paths[1],
        engine=engine,
        **SETTINGS,
    )
    return *map(read, paths), paths[0]


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_engines_agree_but_next_to_the_threshold(image, predictor, tmp_path, engine):
    pytest.importorskip(engine)
    (mask, with_keras), (likely, _), _ = both(image, predictor, tmp_path / "a", "keras")
    (other, tag), (found, _), _ = both(image, predictor, tmp_path / "b", engine)
    assert with_keras.startswith("keras on tensorflow 2.")
    assert tag.startswith(f"{engine} ")
    assert abs(likely - found).max() <= 1  # of 254
    away = abs(likely / 254 - 0.5) > 1e-2
    assert 0 < mask[away].mean() < 1
    np.testing.assert_array_equal(mask[away], other[away])
    patches = np.random.default_rng(0).integers(0, 256, (3, 64, 32, 3), np.uint8)
    computed = engines.make_engine(predictor, engine)(patches)
    np.testing.assert_allclose(computed, predictor.predict(patches), atol=1e-4)


def test_the_onnx_file_is_made_once(predictor, monkeypatch):
    path = engines.converted(predictor)
    monkeypatch.setattr(engines, "convert_network", None)
    assert engines.converted(predictor) == path


def use(predictor, windows=WINDOWS):
    used, name = engines.use_engine(predictor, "auto", windows, side=32, batch=2)
    return used.predict, name


@pytest.fixture
def clocked(monkeypatch):
    """What a batch takes with each engine, in seconds."""
    seconds = {"keras": 1.0, "onnxruntime": 0.5}
    made = {"onnxruntime": lambda batch: batch}

    def measure(predict, patches):
        assert patches.shape == (2, 32, 32, 3)
        names = [name for name, one in made.items() if one is predict]
        return seconds[names[0] if names else "keras"]

    monkeypatch.setattr(engines, "OTHERS", ("onnxruntime",))
    monkeypatch.setattr(engines, "measure", measure)
    monkeypatch.setattr(engines, "make_engine", lambda _, name: made[name])
    return seconds, made


def test_the_fastest_is_taken(predictor, clocked, caplog):
    seconds, made = clocked
    with caplog.at_level("INFO"):
        assert use(predictor) == (made["onnxruntime"], "onnxruntime")
    assert caplog.messages == ["engine: onnxruntime, 2.0 times as fast as Keras"]
    seconds["onnxruntime"] = 1.5
    assert use(predictor) == (predictor.predict, "keras")


def test_keras_is_taken_where_there_is_little_to_do(predictor, clocked, monkeypatch):
    assert use(predictor, windows=2 * engines.WORTH - 2)[1] == "keras"
    assert use(predictor, windows=2 * engines.WORTH)[1] == "onnxruntime"
    assert use(PREDICTOR) == (PREDICTOR.predict, "keras")  # no network
    monkeypatch.setattr(engines, "has_gpu", lambda: True)
    assert use(predictor)[1] == "keras"


def test_what_onnx_cannot_hold_is_left_to_keras(predictor, monkeypatch, caplog):
    def fail(*_):
        raise NotImplementedError("no such layer\nin two lines")

    unknown = replace(predictor, digest="unknown")
    monkeypatch.setattr(engines, "WORTH", 0)
    monkeypatch.setattr(engines, "convert_network", fail)
    with caplog.at_level("INFO"):
        assert use(unknown) == (predictor.predict, "keras")
    assert caplog.messages[0] == "engine: ONNX cannot hold this model: no such layer"
    with pytest.raises(ValueError, match="ONNX cannot hold this model: no such"):
        engines.use_engine(unknown, "onnxruntime", 1, 32, 2)
    damaged = engines.converted(predictor).with_name("damaged.onnx")
    damaged.write_text("nothing")
    with pytest.raises(ValueError, match="onnxruntime cannot compute this model: "):
        engines.make_engine(replace(predictor, digest="damaged"), "onnxruntime")


def test_an_engine_that_is_not_installed_is_named(image, predictor, tmp_path):
    with pytest.raises(ValueError, match=r"pip install 'bdloss\[nowhere\]'"):
        predict_raster(image, predictor, tmp_path / "out" / "m.tif", engine="nowhere")
    assert not (tmp_path / "out").exists()


def test_what_is_there_keeps_its_engine(image, predictor, tmp_path):
    (_, tag), _, mask = both(image, predictor, tmp_path / "a", "onnxruntime")
    again = predict_raster(image, predictor, mask, resume=True, **SETTINGS)
    assert again.kept
    with pytest.raises(FileExistsError, match=f"made with engine {tag}, not keras on"):
        predict_raster(image, predictor, mask, resume=True, engine="keras", **SETTINGS)


def test_half_of_a_map_goes_on_with_its_engine(image, predictor, tmp_path):
    seen = []

    def stop(megapixels):
        seen.append(megapixels)
        if len(seen) == 2:
            raise KeyboardInterrupt

    mask = tmp_path / "mask.tif"
    how = {"resume": True, **SETTINGS}
    with pytest.raises(KeyboardInterrupt):
        predict_raster(
            image, predictor, mask, engine="onnxruntime", progress=stop, **how
        )
    with pytest.raises(
        ValueError, match=r"begun with engine onnxruntime .*, not keras"
    ):
        predict_raster(image, predictor, mask, engine="keras", **how)
    predict_raster(image, predictor, mask, **how)
    assert read(mask)[1].startswith("onnxruntime ")
    whole = tmp_path / "whole.tif"
    predict_raster(image, predictor, whole, engine="onnxruntime", **how)
    np.testing.assert_array_equal(read(mask)[0], read(whole)[0])


def test_shards_are_of_keras_unless_told(image, predictor, tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "WORTH", 0)
    mask = tmp_path / "mask.tif"
    result = predict_raster(image, predictor, mask, shard=(1, 2), **SETTINGS)
    assert '"engine": "keras on' in (result.files[0] / "settings.json").read_text()
