"""The model that comes with the package."""

import keras
import numpy as np
import pytest
import rasterio

from bdloss import models
from bdloss_tests.models.shipped_maps import MAPS, WINDOW

SAMPLE = "samples/banepa/images/banepa_south.tif"


def test_its_file_is_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = models.find_model("buildings")
    assert path.is_file() and path.stat().st_size < 6e6
    assert models.find_model(tmp_path / "buildings") == tmp_path / "buildings"
    facts = models.read_metadata("buildings")
    assert set(facts["scenes"]) == {"banepa_north", "zanzibar_A_all", "zanzibar_B_all"}
    assert facts["targets"] == ["building", "contact"]


def test_it_predicts_alike_on_every_backend():
    """`MAPS` were made on TensorFlow: means of squares of 16 pixels, of both maps."""
    predictor = models.load_predictor("buildings")
    with rasterio.open(SAMPLE) as source:
        pixels = source.read(window=rasterio.windows.Window(*WINDOW))
    maps = np.asarray(predictor.predict(np.moveaxis(pixels, 0, -1)[np.newaxis]))
    squares = maps.reshape(4, 16, 4, 16, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(squares, np.array(MAPS), rtol=0, atol=1e-4)
    assert squares[..., 0].min() < 0.2 and squares[..., 0].max() > 0.9


def test_it_asks_for_a_resolution_where_none_is_known():
    predictor = models.load_predictor("buildings")
    assert (predictor.name, predictor.needs_resolution) == ("buildings", True)
    assert predictor.resolution == 0.25
    assert not models.load_predictor(models.find_model("buildings")).needs_resolution


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="of TensorFlow")
def test_it_becomes_onnx(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    from bdloss.inference.onnx import export_onnx

    predictor = models.load_predictor("buildings")
    metadata = export_onnx(predictor, tmp_path / "buildings.onnx")
    assert metadata["resolution"] == 25  # centimetres
    session = onnxruntime.InferenceSession(tmp_path / "buildings.onnx")
    side = predictor.patch_size
    with rasterio.open(SAMPLE) as source:
        pixels = source.read(window=rasterio.windows.Window(400, 200, side, side))
    (maps,) = session.run(None, {"image": pixels[np.newaxis].astype(np.float32) / 255})
    expected = predictor.predict(np.moveaxis(pixels, 0, -1)[np.newaxis])[..., 0]
    np.testing.assert_allclose(maps[:, 1], expected, rtol=0, atol=1e-4)
