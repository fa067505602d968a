import numpy as np
import pytest
import rasterio
from scipy import ndimage

from bdloss.data.aicd import read_aicd
from bdloss.data.scenes import load_scene
from bdloss.data.synthetic import make_picture, read_synthetic, write_archive

HEIGHT, WIDTH = 60, 84


def make(*seed, **arguments):
    return make_picture(np.random.default_rng(seed), HEIGHT, WIDTH, **arguments)


def read(path):
    with rasterio.open(path) as source:
        return np.moveaxis(source.read(), 0, -1)


@pytest.fixture(scope="module")
def pictures():
    return [make(3, number) for number in range(120)]


def test_a_scene_has_one_building(pictures):
    for picture in pictures:
        assert set(np.unique(picture.mask)) == {0, 1}
        _, buildings = ndimage.label(picture.mask, np.ones((3, 3)))
        # The edge may cut an L into its two ends.
        assert buildings == 1 or (buildings == 2 and touches_edge(picture.mask))


def touches_edge(mask):
    return mask[[0, -1]].any() or mask[:, [0, -1]].any()


def test_buildings_are_of_all_kinds(pictures):
    cut = [touches_edge(picture.mask) for picture in pictures]
    assert 0.1 < np.mean(cut) < 0.5
    whole = [p.mask for p, is_cut in zip(pictures, cut, strict=True) if not is_cut]
    courtyards = [ndimage.binary_fill_holes(mask).sum() > mask.sum() for mask in whole]
    assert 0.2 < np.mean(courtyards) < 0.6
    # An L or a T fills little of the least rectangle around it, which may be turned.
    filled = [mask.sum() / np.prod(least_rectangle(mask)) for mask in whole]
    assert min(filled) < 0.7 < 0.9 < max(filled)


def least_rectangle(mask):
    points = np.argwhere(mask)
    angles = np.linspace(0, np.pi / 2, 60, endpoint=False)
    turned = [
        points @ [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]] for a in angles
    ]
    sizes = [np.ptp(at, axis=0) + 1 for at in turned]
    return min(sizes, key=np.prod)


def test_the_roof_is_all_that_was_built_but_for_its_shadow(pictures):
    for picture in pictures[:20]:
        built = (picture.target != picture.moving).any(axis=-1)
        shadow = built & (picture.mask == 0)
        assert built[picture.mask == 1].mean() > 0.9
        assert (picture.target[shadow] < picture.moving[shadow] + 1).all()
        assert shadow.any() or touches_edge(picture.mask)


def test_without_shadows_only_the_shadows_are_gone():
    lit, dark = make(5, shadows=False), make(5, shadows=True)
    np.testing.assert_array_equal(lit.mask, dark.mask)
    np.testing.assert_array_equal(
        lit.target[lit.mask == 1], dark.target[dark.mask == 1]
    )
    changed = (lit.target != dark.target).any(axis=-1)
    assert 0 < changed.mean() < 0.5
    assert lit.target[changed].mean() > 1.5 * dark.target[changed].mean()
    assert (lit.target != lit.moving)[lit.mask == 0].sum() == 0


def test_a_scene_depends_on_its_seed_alone():
    np.testing.assert_array_equal(make(7).target, make(7).target)
    assert (make(7).target != make(8).target).mean() > 0.5


def test_an_archive_has_the_layout_of_aicd(tmp_path):
    root = tmp_path / "made"
    write_archive(root, 3, views=2, size=(HEIGHT, WIDTH), shadows=(True, False))
    stems = [f"Scene{scene:04}_View0{view}" for scene in range(3) for view in range(2)]
    found = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.*"))
    assert found == sorted(
        [f"GroundTruth/{stem}_gtmask.png" for stem in stems]
        + [f"Images_{kind}/{stem}_target.png" for stem in stems for kind in
           ("Shadows", "NoShadow")]
    )  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    picture = make(0, 2, 1)
    stem = stems[-1]
    image = read(root / "Images_Shadows" / f"{stem}_target.png")
    np.testing.assert_array_equal(image, picture.target)
    mask = read(root / "GroundTruth" / f"{stem}_gtmask.png")
    np.testing.assert_array_equal(mask[..., 0], picture.mask * 255)


def test_more_scenes_begin_with_the_same(tmp_path):
    for scenes in (1, 2):
        write_archive(tmp_path / str(scenes), scenes, size=(HEIGHT, WIDTH))
    name = "Images_Shadows/Scene0000_View00_target.png"
    first, second = (read(tmp_path / count / name) for count in "12")
    np.testing.assert_array_equal(first, second)


def test_geotiffs_have_a_place_on_the_ground(tmp_path):
    write_archive(tmp_path / "made", 1, size=(HEIGHT, WIDTH), suffix=".tif")
    (scene,) = read_aicd(tmp_path / "made").train
    np.testing.assert_array_equal(load_scene(scene).pixels, make(0, 0, 0).target)
    np.testing.assert_array_equal(load_scene(scene).mask, make(0, 0, 0).mask)
    with rasterio.open(scene.image) as source:
        assert source.crs.to_epsg() == 32645
        assert source.res == (0.5, 0.5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"scenes": 0},
            ValueError,
            "^scenes and views must be at least 1, got 0 and 1",
        ),
        ({"suffix": ".jpg"}, ValueError, "^suffix must be .png or .tif, got '.jpg'$"),
        ({}, FileExistsError, " exists$"),
    ],
)
def test_an_archive_needs_scenes_and_a_new_folder(tmp_path, arguments, error, message):
    with pytest.raises(error, match=message):
        write_archive(tmp_path, **arguments)


def test_synthetic_scenes_are_made_once(tmp_path):
    root = tmp_path / "made"
    splits = read_synthetic(root, scenes=20, height=60)
    assert [len(scenes) for scenes in splits] == [16, 2, 2]
    assert load_scene(splits.train[0]).mask.shape == (60, 80)
    times = [path.stat().st_mtime_ns for path in root.rglob("*.png")]
    assert read_synthetic(root, scenes=20, height=60) == splits
    assert [path.stat().st_mtime_ns for path in root.rglob("*.png")] == times
    with pytest.raises(ValueError, match=r"must hold the 30 scenes .* it holds 20 of "):
        read_synthetic(root, scenes=30, height=60)
    with pytest.raises(ValueError, match=r"of \(90, 120\) .* of \(60, 80\); "):
        read_synthetic(root, scenes=20, height=90)
    with pytest.raises(ValueError, match="must hold scenes of seed 1; remove it or "):
        read_synthetic(root, scenes=20, height=60, seed=1)
    others = read_synthetic(tmp_path / "others", scenes=20, height=60, seed=1)
    assert read_synthetic(tmp_path / "others", 20, 60, seed=1) == others
