import cv2
import numpy as np

from bdloss import plots
from bdloss.evaluation.scoring import score_rasters
from bdloss_tests.scenes import make_scene, write_raster


def test_windows_are_ranked_by_iou_and_lie_inside(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        plots, "draw_windows", lambda some, path: drawn.update({path.stem: some})
    )
    true = make_scene(1, 300, 520)[1]
    pred = true.copy()
    pred[150:, 400:] = 0
    write_raster(tmp_path / "truth.tif", true)
    write_raster(tmp_path / "pred.tif", pred)
    score_rasters(tmp_path / "pred.tif", tmp_path / "truth.tif", tmp_path / "out")
    worst, best = drawn["worst"][0], drawn["best"][0]
    assert worst.title.endswith("row 44, column 264")  # 300 - 256, 520 - 256
    part = (slice(44, None), slice(264, None))
    np.testing.assert_array_equal(worst.true, true[part])
    np.testing.assert_array_equal(worst.pred, pred[part])
    assert "IoU 1.00" in best.title
    assert best.pixels is None
    # 300 x 520 pixels have room for two windows; the grid of them has six.
    for samples in drawn.values():
        columns = sorted(int(one.title.split()[-1]) for one in samples)
        assert len(columns) == 1 or columns[1] - columns[0] >= 256


def test_a_large_error_map_is_thinned_evenly(tmp_path):
    true, pred = make_scene(2, 90, 70)[1], np.roll(make_scene(2, 90, 70)[1], 4, 1)
    write_raster(tmp_path / "truth.tif", true)
    write_raster(tmp_path / "pred.tif", pred)
    paths = (tmp_path / f"{name}.tif" for name in ("pred", "truth"))
    score_rasters(*paths, tmp_path / "out", strip_height=31, picture_side=40)
    found = cv2.imread(str(tmp_path / "out" / "pred_errors.png"))[..., ::-1]
    whole = plots.colour_errors(plots.mark_errors(true, pred, 3))
    np.testing.assert_array_equal(found, whole[::3, ::3])
