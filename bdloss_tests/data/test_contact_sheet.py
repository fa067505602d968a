import cv2
import numpy as np
import pytest

from bdloss.data.contact_sheet import draw_contact_sheet
from bdloss.data.patches import Patches
from bdloss.data.scenes import SceneData
from bdloss.plots import TRUE
from bdloss_tests.scenes import make_scene

PATCH = 40


def read(path):
    return cv2.imread(str(path))[..., ::-1]


@pytest.fixture
def scene():
    pixels, mask = make_scene(2, 70, 110)
    mask[:, 90:] = 255
    return SceneData(pixels, mask)


def test_a_sheet_shows_the_patches_of_a_training_with_their_outlines(scene, tmp_path):
    path = tmp_path / "sheet.png"
    draw_contact_sheet(
        [scene], path, patch=PATCH, augment="none", seed=7, rows=2, columns=3
    )
    sheet = read(path)
    assert sheet.shape == (2 * PATCH + 4, 3 * PATCH + 8, 3)
    patches, masks = Patches([scene], PATCH, 6, steps=1, seed=7)[0]
    for place, (pixels, mask) in enumerate(zip(patches, masks[..., 0], strict=True)):
        top, left = (at * (PATCH + 4) for at in divmod(place, 3))
        drawn = sheet[top : top + PATCH, left : left + PATCH]
        line = (drawn == TRUE).all(axis=-1)
        inner = cv2.erode((mask == 1).astype(np.uint8), np.ones((3, 3)))
        assert line.any() and (mask[line] == 1).all()
        np.testing.assert_array_equal(
            drawn[inner == 1][~line[inner == 1]], pixels[inner == 1][~line[inner == 1]]
        )
        np.testing.assert_array_equal(drawn[mask == 0], pixels[mask == 0])
        np.testing.assert_array_equal(drawn[mask == 255], pixels[mask == 255] // 3)
    assert (masks == 255).any()


def test_a_sheet_shows_contact(scene, tmp_path):
    contact = np.zeros_like(scene.mask)
    contact[::5] = 1
    path = tmp_path / "sheet.png"
    draw_contact_sheet(
        [scene._replace(contact=contact)],
        path,
        patch=PATCH,
        augment="none",
        rows=1,
        columns=1,
        seed=7,
    )
    (maps,) = Patches([scene._replace(contact=contact)], PATCH, 1, steps=1, seed=7)[0][
        1
    ]
    magenta = (read(path) == (255, 0, 255)).all(axis=-1)
    np.testing.assert_array_equal(magenta, maps[..., 1] == 1)
    assert magenta.any()


def test_a_sheet_is_not_replaced_unasked(scene, tmp_path):
    path = tmp_path / "sheet.png"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match=r"sheet\.png exists"):
        draw_contact_sheet([scene], path, patch=PATCH)
    assert path.read_text() == "mine"
    draw_contact_sheet([scene], path, patch=PATCH, rows=1, overwrite=True)
    assert read(path).shape == (PATCH, 6 * PATCH + 20, 3)


def test_what_a_sheet_needs(scene, tmp_path):
    with pytest.raises(ValueError, match=r"is a \.png, got .*sheet\.jpg"):
        draw_contact_sheet([scene], tmp_path / "sheet.jpg", patch=PATCH)
    with pytest.raises(FileNotFoundError, match=r"no such folder: .*none"):
        draw_contact_sheet([scene], tmp_path / "none" / "sheet.png", patch=PATCH)
