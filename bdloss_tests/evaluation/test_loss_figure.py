import cv2
import numpy as np
import pytest
import rasterio

from bdloss.evaluation.loss_figure import draw_stages
from bdloss_tests.scenes import make_scene, write_raster


def test_stages_are_drawn_where_the_boundary_is_longest(tmp_path):
    true = np.zeros((80, 120), np.uint8)
    true[50:60, 90:100] = true[10:14, 10:14] = 1
    truth = write_raster(tmp_path / "truth.tif", true)
    prob = write_raster(tmp_path / "a_prob.tif", true * 200, nodata=255)
    with rasterio.open(prob, "r+") as target:
        target.scales = (1 / 254,)
    image = write_raster(tmp_path / "image.tif", make_scene(0, 80, 120)[0])
    path = tmp_path / "figure.png"
    window = draw_stages(prob, truth, path, image, side=40)
    assert window == (40, 80, 40, 40)
    assert cv2.imread(str(path)).std() > 20
    with pytest.raises(FileExistsError, match="give --overwrite"):
        draw_stages(prob, truth, path)
    with pytest.raises(ValueError, match="the corner must lie in 80 rows"):
        draw_stages(prob, truth, path, corner=(80, 0), overwrite=True)
    with pytest.raises(ValueError, match="theta must not be less"):
        draw_stages(prob, truth, tmp_path / "no.png", theta0=7)
    assert not (tmp_path / "no.png").exists()
