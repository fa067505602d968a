import json
import zipfile
from dataclasses import replace

import keras
import numpy as np
import pytest

from bdloss import models
from bdloss.models import files

PIXELS = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), dtype=np.uint8)


def test_saved_model_predicts_the_same(tmp_path):
    model = models.build_model("plain", filters=4)
    path = tmp_path / "model.keras"
    models.save_model(model, path, {"window": 64, "threshold": 0.4, "multiple": 16})
    predictor = models.load_predictor(path)
    np.testing.assert_array_equal(
        predictor.predict(PIXELS), model.predict_on_batch(PIXELS)
    )
    assert (predictor.band_count, predictor.patch_size) == (3, 64)
    assert predictor.threshold == 0.4
    assert [file.name for file in tmp_path.iterdir()] == ["model.keras"]
    with zipfile.ZipFile(path) as archive:
        assert json.loads(archive.read("bdloss.json"))["window"] == 64


def test_a_network_is_loaded_when_it_is_needed(tmp_path, monkeypatch):
    model = models.build_model("plain", filters=4)
    known = {"bands": 3, "window": 64, "multiple": 16}
    paths = {
        name: tmp_path / f"{name}.keras" for name in ("known", "window", "bands", "two")
    }
    for name, path in paths.items():
        wrong = {"classes": ["house", "road"]} if name == "two" else {}
        told = {name: known[name]} if name in known else known
        models.save_model(model, path, {**told, **wrong})
    loaded = []
    read_network = files._read_network

    def load(path):
        loaded.append(path.stem)
        return read_network(path)

    monkeypatch.setattr(files, "_read_network", load)
    lazy = {
        name: models.load_predictor(path, lazy=True) for name, path in paths.items()
    }
    assert loaded == ["window", "bands"]
    for name in ("known", "window", "bands"):
        predictor = replace(lazy[name], name="copy")
        for _ in range(2):
            np.testing.assert_array_equal(
                predictor.predict(PIXELS), model.predict_on_batch(PIXELS)
            )
        assert predictor.load_network() is lazy[name].load_network()
    assert loaded == ["window", "bands", "known"]
    assert (lazy["known"].band_count, lazy["known"].patch_size) == (3, 64)
    with pytest.raises(ValueError, match=r"maps of \('house', 'road'\), got .*, 1\)"):
        lazy["two"].predict(PIXELS)


def test_model_of_another_program_is_accepted(tmp_path):
    model = keras.Sequential(
        [keras.Input((None, None, 3)), keras.layers.Conv2D(1, 1, activation="sigmoid")]
    )
    model.save(tmp_path / "other.keras")
    predictor = models.load_predictor(tmp_path / "other.keras")
    assert (predictor.name, predictor.band_count) == ("other", 3)
    assert predictor.patch_size == 512


def test_files_that_are_no_such_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        models.load_predictor(tmp_path / "none.keras")
    text = tmp_path / "text.keras"
    text.write_text("hello")
    with pytest.raises(ValueError, match="not a Keras model"):
        models.load_predictor(text)
    with zipfile.ZipFile(tmp_path / "zip.keras", "w") as archive:
        archive.writestr("hello", "world")
    with pytest.raises(ValueError, match="not a Keras model"):
        models.load_predictor(tmp_path / "zip.keras")
    two = models.build_model("plain", classes=2, filters=2, blocks=1)
    two.save(tmp_path / "two.keras")
    with pytest.raises(ValueError, match="one map of buildings"):
        models.load_predictor(tmp_path / "two.keras")


def test_a_model_of_several_maps_names_them(tmp_path):
    path = tmp_path / "model.keras"
    three = models.build_model("plain", classes=3, filters=2, blocks=1)
    metadata = {"classes": ["house", "road"], "targets": ["house", "road", "contact"]}
    models.save_model(three, path, metadata)
    predictor = models.load_predictor(path)
    assert predictor.classes == ("house", "road")
    assert predictor.targets == ("house", "road", "contact")
    assert predictor.has_contact
    assert predictor.predict(PIXELS).shape == (1, 64, 96, 3)
    models.save_model(three, path, {"classes": ["house", "road"]})
    with pytest.raises(ValueError, match=r"maps of \('house', 'road'\), got .*, 3\)"):
        models.load_predictor(path)


def test_a_model_that_names_nothing_is_of_buildings():
    assert sixteenfold().classes == sixteenfold().targets == ("building",)
    assert not sixteenfold().has_contact


def sixteenfold():
    return models.Predictor(
        name="x",
        predict=lambda batch: batch,
        band_count=3,
        patch_size=256,
        multiple=16,
        threshold=0.5,
        resolution=None,
    )


def test_window_must_fit_the_network():
    predictor = sixteenfold()
    predictor.check_window(48)
    with pytest.raises(ValueError, match=r"multiple of 16 pixels .* got 40"):
        predictor.check_window(40)


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ("[]", "must be a table"),
        ("{", "damaged bdloss.json"),
        ('{"window": "64"}', "window of a model must be a whole number above 0"),
        ('{"bands": 0}', "bands of a model must be a whole number above 0"),
        ('{"window": true}', "window of a model must be a whole number above 0"),
        ('{"multiple": 0}', "multiple of a model must be"),
        ('{"multiple": null}', "multiple of a model must be"),
        ('{"threshold": "a"}', r"threshold of a model must be in \[0, 1\]"),
        ('{"threshold": NaN}', r"threshold of a model must be in \[0, 1\]"),
        ('{"resolution": "x"}', "resolution of a model must be a number of metres"),
        ('{"resolution": 0}', "resolution of a model must be a number of metres"),
        ('{"tta": 4}', "tta of a model must be a text"),
        ('{"classes": []}', "classes of a model must be a list of different names"),
        ('{"classes": ["a", "a"]}', "classes of a model must be a list of different"),
        ('{"targets": ["road"]}', "targets of a model must be its classes, or these"),
    ],
)
def test_odd_facts_of_a_model_are_named(tmp_path, facts, says):
    path = tmp_path / "model.keras"
    models.save_model(models.build_model(filters=2, blocks=1), path, {})
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**parts, models.METADATA_FILE: facts.encode()}.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match=says) as refused:
        models.load_predictor(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("change", ["layer of another", "no table"])
def test_odd_networks_are_no_models(tmp_path, change):
    path = tmp_path / "model.keras"
    models.save_model(models.build_model(filters=2, blocks=1), path, {})
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = parts["config.json"].decode()
    parts["config.json"] = (
        "[]" if change == "no table" else config.replace("Conv2D", "TheirConv2D")
    ).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match="not a Keras model") as refused:
        models.load_predictor(path)
    assert "\n" not in str(refused.value)


def test_a_window_must_fit_into_memory():
    predictor = sixteenfold()
    with pytest.raises(ValueError, match=r"a window of 1600000 .* needs 40960 GB of"):
        predictor.check_window(1_600_000)


def test_a_model_whose_list_of_parts_is_damaged_is_named(bright_model, tmp_path):
    path = tmp_path / "bright.keras"
    data = bytearray(bright_model.read_bytes())
    data[data.rindex(b"PK\x01\x02")] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"not a Keras model: {path}"):
        models.load_predictor(path)
