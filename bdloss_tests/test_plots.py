import cv2
import numpy as np
import pytest

from bdloss import plots
from bdloss_tests.drawing import HOUSE, draw

MASK = np.kron(HOUSE, np.ones((4, 4))).astype(np.uint8)
GREY = np.full((*MASK.shape, 3), 120, np.uint8)


def test_outlines_are_drawn_at_the_edge_of_buildings_only():
    picture = plots.draw_outlines(GREY, MASK)
    changed = (picture != GREY).any(-1)
    assert changed[8, 8:28].all()  # the upper edge of the house
    assert not changed[14:22, 14:22].any()
    assert not changed[:6].any()


def test_prediction_lies_over_truth():
    picture = plots.draw_outlines(GREY, MASK, np.roll(MASK, 4, axis=1))
    colours = {tuple(int(c) for c in pixel) for pixel in picture.reshape(-1, 3)}
    assert colours == {(120, 120, 120), plots.TRUE, plots.PRED}
    assert tuple(picture[8, 20]) == plots.PRED


def test_pictures_are_written(tmp_path):
    plots.write_picture(plots.draw_outlines(GREY, MASK), tmp_path / "a.png")
    read = cv2.imread(str(tmp_path / "a.png"))[..., ::-1]
    np.testing.assert_array_equal(read, plots.draw_outlines(GREY, MASK))
    rows = [
        {"epoch": 1, "loss": 1.0, "iou": 0.2, "bf1": 0.1, "val_bf1": 0.1, "w": 0.1},
        {"epoch": 2, "loss": 0.5, "iou": 0.6, "bf1": 0.4, "val_bf1": 0.3, "w": 0.2},
    ]
    plots.draw_curves(rows, tmp_path / "curves.png")
    grey = GREY[..., :1]
    plots.draw_samples([("a", grey, MASK, MASK)] * 2, tmp_path / "samples.png")
    for name in ("curves", "samples"):
        assert cv2.imread(str(tmp_path / f"{name}.png")).std() > 10


def test_samples_leave_no_room_around_wide_scenes(tmp_path):
    mask = np.ones((10, 100), np.uint8)
    grey = np.full((10, 100, 3), 90, np.uint8)
    plots.draw_samples([("a", grey, mask, mask)] * 2, tmp_path / "samples.png")
    height, width, _ = cv2.imread(str(tmp_path / "samples.png")).shape
    assert height / width == pytest.approx(2 * 0.7 / 12, rel=0.05)


def test_any_number_of_bands_has_a_picture():
    assert plots.as_rgb(GREY[..., :1]).shape == GREY.shape
    five = np.dstack([GREY, GREY])[..., :5]
    assert plots.as_rgb(five).shape == GREY.shape


def test_errors_near_the_true_boundary_are_marked_apart():
    true = draw("#####......?")
    pred = draw("#.##.##...#.")
    marks = plots.mark_errors(true, pred, tolerance=2)
    names = list(plots.ERRORS)
    near = names.index("right, near the true boundary")
    assert marks[0].tolist() == [
        names.index("building"),
        names.index("missed"),
        names.index("building"),
        near,
        names.index("missed, near it"),
        names.index("false, near it"),
        names.index("false"),
        *[names.index("ground")] * 3,
        names.index("false"),
        names.index("ignored"),
    ]
    picture = plots.colour_errors(marks)
    assert tuple(picture[0, 1]) == plots.ERRORS["missed"]


def test_windows_are_drawn_with_and_without_image(tmp_path):
    samples = [
        plots.Sample("with", GREY, MASK, np.roll(MASK, 3, axis=0)),
        plots.Sample("without", None, MASK, MASK),
    ]
    plots.draw_windows(samples, tmp_path / "windows.png")
    assert cv2.imread(str(tmp_path / "windows.png")).std() > 20


def test_stages_of_the_loss_are_drawn_with_ignored_pixels(tmp_path):
    true = MASK.copy()
    true[:, -6:] = 255
    plots.draw_stages(true, MASK * 0.8, tmp_path / "stages.png", pixels=GREY)
    assert cv2.imread(str(tmp_path / "stages.png")).std() > 20


def test_runs_are_compared_by_a_line_and_a_band(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        plots.Figure, "savefig", lambda figure, *_, **__: drawn.append(figure)
    )
    runs = [[{"iou": 0.1}, {"iou": 0.5}], [{"iou": 0.3}, {"iou": 0.6}, {"iou": 0.9}]]
    plots.draw_comparison({"a": runs, "b": runs[:1]}, "iou", tmp_path / "a.png", "IoU")
    (axes,) = drawn[0].axes
    lines = {line.get_label(): line.get_ydata().tolist() for line in axes.lines}
    assert lines == {"a, 2 runs": [0.2, 0.55], "b, 1 run": [0.1, 0.5]}
    band = axes.collections[0].get_paths()[0].vertices
    assert {(1.0, 0.1), (1.0, 0.3), (2.0, 0.5), (2.0, 0.6)} <= set(map(tuple, band))


def test_intervals_stand_in_the_rows_of_their_names(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        plots.Figure, "savefig", lambda figure, *_, **__: drawn.append(figure)
    )
    panels = {"IoU": {"b": (1.0, -2.0, 4.0)}, "F1": {"a": (3.0, np.nan, np.nan)}}
    centres = {"IoU": 0.0, "F1": 100.0}
    plots.draw_intervals(panels, ["a", "b"], centres, tmp_path / "a.png")
    first, second = drawn[0].axes
    line, interval, mean = first.lines
    assert (first.get_title(), second.get_title()) == ("IoU", "F1")
    assert [text.get_text() for text in first.get_yticklabels()] == ["b", "a"]
    assert line.get_xdata() == [0, 0]
    assert interval.get_xydata().tolist() == [[-2, 0], [4, 0]]
    assert mean.get_xydata().tolist() == [[1, 0]]
    assert second.lines[0].get_xdata() == [100, 100]
    assert second.lines[2].get_xydata().tolist() == [[3, 1]]


def test_models_stand_side_by_side_with_their_scores(tmp_path):
    moved, true = np.roll(MASK, 4, axis=1), MASK.copy()
    true[:3] = 255
    samples = [("a\nrow 1", GREY, true, [MASK, moved])] * 2
    plots.draw_side_by_side(samples, ["one", "two"], tmp_path / "sides.png")
    picture = cv2.imread(str(tmp_path / "sides.png"))
    assert picture.shape[:2] == (700, 1240)
    assert picture.std() > 10
