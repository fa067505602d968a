import json
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest
import rasterio

from bdloss import constants, models
from bdloss.data import cache
from bdloss.data.cache import cache_size, clear_cache, default_folder, onnx_file
from bdloss.errors import InputError
from bdloss.inference import engines, onnx, predict_raster
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


def stop_at(block):
    """Return what stops a prediction when so many blocks of rows are written."""
    seen = []

    def progress(megapixels):
        seen.append(megapixels)
        if len(seen) == block:
            raise KeyboardInterrupt

    return progress


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
    assert with_keras == "keras"
    assert tag.startswith(f"{engine} ")
    assert abs(likely - found).max() <= 1  # of 254
    away = abs(likely / 254 - 0.5) > 1e-2
    assert 0 < mask[away].mean() < 1
    np.testing.assert_array_equal(mask[away], other[away])
    patches = np.random.default_rng(0).integers(0, 256, (3, 64, 32, 3), np.uint8)
    computed = engines.make_engine(predictor, engine)(patches)
    np.testing.assert_allclose(computed, predictor.predict(patches), atol=1e-4)


class OpenVINO:
    """The part of OpenVINO that is used, on a processor of some abilities."""

    __version__ = "1.0"
    opset13 = None

    def __init__(self, abilities):
        self.abilities, self.asked = abilities, []

    def Core(self):  # noqa: N802, theirs
        return self

    def get_property(self, device, name):
        assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
        return self.abilities

    def read_model(self, path):
        assert path.is_file()
        return self

    def get_ordered_ops(self):
        return []

    def compile_model(self, model, device, settings):
        self.asked.append(settings["INFERENCE_PRECISION_HINT"])
        return lambda batch: [batch[..., :1] / 255]


def test_bfloat16_is_computed_where_it_is_named(predictor, monkeypatch):
    fake = OpenVINO(["FP32", "BF16"])
    monkeypatch.setitem(sys.modules, "openvino", fake)
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: name)
    patches = np.full((1, 8, 8, 3), 51, np.uint8)
    for engine in ("openvino", "openvino-bf16"):
        assert (engines.make_engine(predictor, engine)(patches) == 0.2).all()
        assert engines.engine_tag(engine) == f"{engine} 1.0"
    assert fake.asked == ["f32", "bf16"]
    assert engines.engine_name("openvino-bf16 1.0") == "openvino-bf16"
    fake.abilities = ["FP32"]
    with pytest.raises(ValueError, match="openvino-bf16 needs a processor that"):
        engines.make_engine(predictor, "openvino-bf16")
    engines.make_engine(predictor, "openvino")


def test_bfloat16_is_not_exact(image, predictor, tmp_path):
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor does not compute in bfloat16")
    _, (likely, _), _ = both(image, predictor, tmp_path / "a", "keras")
    (_, tag), (found, _), _ = both(image, predictor, tmp_path / "b", "openvino-bf16")
    assert tag.startswith("openvino-bf16 ")
    assert 0 < abs(likely - found).mean() < 3  # of 254


def test_the_onnx_file_is_made_once_and_again_if_damaged(predictor, monkeypatch):
    engines.make_engine(predictor, "onnxruntime")
    path = onnx_file(default_folder(), predictor.digest)
    assert cache_size(default_folder()) >= path.stat().st_size > 0
    with monkeypatch.context() as patch:
        patch.setattr(engines, "write_onnx", None)
        engines.make_engine(predictor, "onnxruntime")
    path.write_text("nothing")
    engines.make_engine(predictor, "onnxruntime")
    assert path.stat().st_size > 100
    monkeypatch.setattr(cache, "ONNX_VERSION", cache.ONNX_VERSION + 1)
    engines.make_engine(predictor, "onnxruntime")
    assert onnx_file(default_folder(), predictor.digest) != path
    assert len(list(path.parent.iterdir())) == 2
    clear_cache(default_folder())
    assert not any(path.parent.iterdir())


def test_an_engine_is_at_hand_when_its_file_is_kept(predictor, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = tmp_path / "model.keras"
    network = predictor.load_network()
    models.save_model(network, path, {"window": 32, "bands": 3, "multiple": 4})
    assert not engines.is_at_hand(path, "onnxruntime")
    engines.make_engine(models.load_predictor(path), "onnxruntime")
    for fastest in (None, "keras", "openvino"):
        monkeypatch.setattr(engines, "recall_engine", lambda digest, one=fastest: one)
        for engine in ("auto", *constants.ENGINES):
            used = fastest if engine == "auto" else engine
            kept = used not in (None, "keras")
            assert engines.is_at_hand(path, engine) == kept
    with pytest.raises(FileNotFoundError, match="none"):
        engines.is_at_hand(tmp_path / "none.keras", "onnxruntime")


def test_a_network_of_no_file_is_not_kept(predictor):
    engines.make_engine(replace(predictor, digest=""), "onnxruntime")
    assert not onnx_file(default_folder(), "").exists()


def use(predictor, windows=WINDOWS):
    used, name = engines.choose_engine(predictor, "auto", windows, side=32, batch=2)
    return used.predict, name


@pytest.fixture
def fresh(predictor, request, tmp_path, monkeypatch):
    """The model, of which nothing is measured yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return replace(predictor, name=request.node.name)


@pytest.fixture
def clocked(fresh, monkeypatch):
    """What a batch takes with each engine, in seconds."""
    seconds = {"keras": 1.0, "onnxruntime": 0.5, "openvino": 0.7}
    made = {  # none that is not exact
        "onnxruntime": lambda batch: fresh.predict(batch) + 1e-4,
        "openvino": lambda batch: fresh.predict(batch),
    }

    def time_batch(predict, patches, rounds=3):
        assert patches.shape == (2, 32, 32, 3)
        names = [name for name, one in made.items() if one is predict]
        return seconds[names[0] if names else "keras"]

    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(engines, "time_batch", time_batch)
    monkeypatch.setattr(engines, "make_engine", lambda _, name: made[name])
    return seconds, made


def test_the_fastest_is_taken_and_remembered(fresh, clocked, caplog):
    seconds, made = clocked
    with caplog.at_level("INFO"):
        assert use(fresh) == (made["onnxruntime"], "onnxruntime")
    assert caplog.messages == ["engine: onnxruntime, 2.0 times as fast as Keras"]
    seconds["onnxruntime"] = 1.5
    assert use(fresh)[1] == "onnxruntime"
    assert use(replace(fresh, digest="b")) == (made["openvino"], "openvino")
    seconds["openvino"] = 1.5
    assert use(replace(fresh, digest="c")) == (fresh.predict, "keras")
    assert [engines.recall_engine(one) for one in (fresh.digest, "b", "c", "d")] == [
        *("onnxruntime", "openvino", "keras", None)
    ]


def test_keras_is_not_remembered_where_no_engine_could_be_measured(
    fresh, clocked, monkeypatch
):
    def refuse(_, name):
        raise InputError(f"{name} needs another package")

    with monkeypatch.context() as patch:
        patch.setattr(engines, "make_engine", refuse)
        assert use(fresh) == (fresh.predict, "keras")
    assert engines.recall_engine(fresh.digest) is None
    assert use(replace(fresh, name="the next process"))[1] == "onnxruntime"


def test_what_was_measured_is_taken_by_the_next_process(fresh, clocked, monkeypatch):
    seconds, made = clocked
    monkeypatch.setattr(engines, "has_gpu", lambda: False)
    use(fresh)
    monkeypatch.setattr(engines, "has_gpu", None)  # Keras is not asked
    seconds["onnxruntime"] = 1.5
    for number, windows in enumerate((1, WINDOWS)):
        again = replace(fresh, name=f"process {number}")
        assert use(again, windows) == (made["onnxruntime"], "onnxruntime")
    with monkeypatch.context() as patch:
        patch.setattr(engines, "count_cores", lambda: 999)
        assert engines.recall_engine(fresh.digest) is None
    with monkeypatch.context() as patch:
        patch.setattr(engines, "GPU_DEVICES", ["null"])  # which there is
        assert engines.recall_engine(fresh.digest) is None
    assert engines.recall_engine(fresh.digest) == "onnxruntime"
    kept = onnx_file(default_folder(), fresh.digest).with_suffix(".json")
    for damaged in ("[]", "{}", "{"):
        kept.write_text(damaged)
        assert engines.recall_engine(fresh.digest) is None
    clear_cache(default_folder())
    assert not kept.exists()


def test_keras_is_taken_where_there_is_little_to_do(fresh, clocked, monkeypatch):
    enough = 2 * engines.MIN_KERAS_SECONDS
    assert use(fresh, windows=2)[1] == use(fresh, windows=enough - 2)[1] == "keras"
    assert use(PREDICTOR) == (PREDICTOR.predict, "keras")  # no network
    assert use(fresh, windows=enough)[1] == "onnxruntime"
    monkeypatch.setattr(engines, "has_gpu", lambda: True)
    assert use(replace(fresh, digest="on a GPU"))[1] == "keras"


@pytest.mark.parametrize(
    ("predict", "says"),
    [
        (lambda batch: 1 / 0, "division by zero"),
        (lambda batch: 0 * batch[..., :1], "onnxruntime computes something else"),
    ],
)
def test_an_engine_that_fails_is_not_taken(fresh, clocked, caplog, predict, says):
    _, made = clocked
    made["onnxruntime"] = predict
    with caplog.at_level("INFO"):
        assert use(fresh)[1] == "openvino"
    assert caplog.messages[0].startswith(f"engine: {says}")
    assert caplog.messages[0].endswith("; Keras goes on")


def test_an_engine_that_gives_maps_in_one_is_not_taken(fresh, clocked, caplog):
    _, made = clocked
    made["onnxruntime"] = lambda batch: fresh.predict(batch)[np.newaxis]
    with caplog.at_level("INFO"):
        assert use(fresh)[1] == "openvino"
    assert "onnxruntime computes something else" in caplog.messages[0]


def test_what_onnx_cannot_hold_is_left_to_keras(fresh, monkeypatch, caplog):
    def fail(*_):
        raise NotImplementedError("no such layer\nin two lines")

    unknown = replace(fresh, digest="unknown")
    monkeypatch.setattr(engines, "MIN_KERAS_SECONDS", 0)
    monkeypatch.setattr(onnx, "convert_network", fail)
    with caplog.at_level("INFO"):
        assert use(unknown) == (fresh.predict, "keras")
    assert "ONNX cannot hold this model: no such layer; Keras" in caplog.messages[0]
    with pytest.raises(ValueError, match=r"ONNX cannot hold this model: no such layer"):
        engines.make_engine(unknown, "onnxruntime")
    monkeypatch.setattr(onnx, "convert_network", lambda _, path, __: path.touch())
    with pytest.raises(ValueError, match="onnxruntime cannot compute this model: "):
        engines.make_engine(unknown, "onnxruntime")


def test_a_cache_that_cannot_be_written_leaves_keras(fresh, monkeypatch, tmp_path):
    (tmp_path / "bdloss").write_text("a file where the folder would be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(engines, "MIN_KERAS_SECONDS", 0)
    assert use(fresh) == (fresh.predict, "keras")


def test_engines_that_cannot_be_used_are_named(image, predictor, tmp_path, monkeypatch):
    mask = tmp_path / "out" / "mask.tif"
    with pytest.raises(ValueError, match="engine must be one of auto, keras, onnxrunt"):
        predict_raster(image, predictor, mask, engine="numpy")
    with pytest.raises(ValueError, match="computes Keras models, got another callable"):
        predict_raster(image, PREDICTOR.predict, mask, engine="onnxruntime")
    with pytest.raises(ValueError, match="computes Keras models, got another callable"):
        predict_raster(image, PREDICTOR, mask, engine="onnxruntime")
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'bdloss\[openvino\]'"):
        predict_raster(image, predictor, mask, engine="openvino")
    assert not (tmp_path / "out").exists()


def test_what_is_there_keeps_its_engine(image, predictor, tmp_path):
    (_, tag), _, mask = both(image, predictor, tmp_path / "a", "onnxruntime")
    assert predict_raster(image, predictor, mask, resume=True, **SETTINGS).kept
    with pytest.raises(FileExistsError, match=f"made with engine {tag}, not keras"):
        predict_raster(image, predictor, mask, resume=True, engine="keras", **SETTINGS)
    assert read(mask)[1] == tag


def test_what_does_not_say_is_of_keras(image, predictor, tmp_path):
    mask = tmp_path / "mask.tif"
    how = {"resume": True, **SETTINGS}
    with pytest.raises(KeyboardInterrupt):
        predict_raster(image, predictor, mask, progress=stop_at(2), **how)
    settings = tmp_path / "mask.partial" / "settings.json"
    known = json.loads(settings.read_text())
    assert known.pop("engine") == "keras"
    settings.write_text(json.dumps(known))
    with pytest.raises(ValueError, match="begun with engine keras, not onnxruntime "):
        predict_raster(image, predictor, mask, engine="onnxruntime", **how)
    predict_raster(image, predictor, mask, **how)
    with rasterio.open(mask, "r+") as source:
        source.update_tags(engine="")
    assert predict_raster(image, predictor, mask, engine="keras", **how).kept
    callable_mask = tmp_path / "callable.tif"
    for kept in (False, True):
        found = predict_raster(
            image, PREDICTOR.predict, callable_mask, window=32, engine="keras", **how
        )
        assert found.kept == kept


def test_half_of_a_map_goes_on_with_its_engine(image, predictor, tmp_path):
    mask = tmp_path / "mask.tif"
    how = {"resume": True, **SETTINGS}
    begun = {"engine": "onnxruntime", "progress": stop_at(2)}
    with pytest.raises(KeyboardInterrupt):
        predict_raster(image, predictor, mask, **begun, **how)
    with pytest.raises(
        ValueError, match=r"begun with engine onnxruntime .*, not keras"
    ):
        predict_raster(image, predictor, mask, engine="keras", **how)
    predict_raster(image, predictor, mask, **how)
    assert read(mask)[1].startswith("onnxruntime ")
    whole = tmp_path / "whole.tif"
    predict_raster(image, predictor, whole, engine="onnxruntime", **how)
    np.testing.assert_array_equal(read(mask)[0], read(whole)[0])


def test_rows_of_shards_are_of_keras_unless_told(
    image, predictor, tmp_path, monkeypatch
):
    monkeypatch.setattr(engines, "MIN_KERAS_SECONDS", 0)
    for engine, tag in (("auto", "keras"), ("onnxruntime", "onnxruntime ")):
        mask = tmp_path / f"{engine}.tif"
        how = {"shard": (1, 2), "engine": engine, **SETTINGS}
        result = predict_raster(image, predictor, mask, **how)
        known = json.loads((result.files[0] / "settings.json").read_text())
        assert known["engine"].startswith(tag)
