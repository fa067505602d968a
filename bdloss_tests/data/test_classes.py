"""Classes as experiments name them, read from masks, colours and outlines."""

import numpy as np
import pytest
import rasterio
import shapely

from bdloss.colours import default_colours
from bdloss.data.cache import load_cached
from bdloss.data.classes import ClassTable
from bdloss.data.datasets import read_dataset
from bdloss.data.folder import FolderSettings
from bdloss.data.potsdam import COLOURS
from bdloss.data.scenes import load_mask, load_scene
from bdloss.geo.ogr import pyogrio
from bdloss.geo.outline_writer import write_outlines
from bdloss.geo.vector import read_attribute
from bdloss.geo.windows import Window
from bdloss.settings import make_settings
from bdloss_tests import archives
from bdloss_tests.scenes import CORNER, UTM, make_scene, write_raster

HEIGHT, WIDTH = 40, 60
CLASSES = np.random.default_rng(3).integers(0, 4, (HEIGHT, WIDTH), np.uint8)
TABLE = {"house": 7, "road": 300, "water": 2}
VALUES = np.array([0, 7, 300, 2], np.uint16)
INKS = {"house": "#FF0000", "road": "#808080", "water": "#0000fe"}
RGB = np.array([(0, 0, 0), (255, 0, 0), (128, 128, 128), (0, 0, 254)], np.uint8)


def write_town(root, mask, **profile):
    write_raster(root / "images" / "a.tif", make_scene(1, HEIGHT, WIDTH)[0])
    return write_raster(root / "masks" / "a.tif", mask, **profile)


def read(root, classes, **settings):
    splits = read_dataset("folder", root, validation=0.0, classes=classes, **settings)
    return splits.train[0]


def write_shapes(root, boxes, **attributes):
    """Write outlines, given in columns and rows of the image."""
    write_raster(root / "images" / "a.tif", make_scene(1, HEIGHT, WIDTH)[0])
    a, _, c, _, e, f = CORNER[:6]
    shapes = [shapely.box(*box) for box in boxes]
    on_ground = shapely.transform(shapes, lambda xy: xy * (a, e) + (c, f))
    path = root / "town.gpkg"
    write_outlines(path, list(on_ground), UTM, **attributes)
    return path


@pytest.mark.parametrize(
    ("classes", "mask"),
    [
        pytest.param(TABLE, VALUES[CLASSES], id="values"),
        pytest.param(INKS, RGB[CLASSES], id="colours"),
    ],
)
def test_a_mask_tells_classes_apart(tmp_path, classes, mask):
    write_town(tmp_path, mask)
    scene = read(tmp_path, classes)
    np.testing.assert_array_equal(load_mask(scene), CLASSES)
    part = Window(7, 11, 20, 30)
    np.testing.assert_array_equal(
        load_mask(scene._replace(area=part)), CLASSES[part.slices]
    )


def test_a_palette_has_colours_too(tmp_path):
    path = write_town(tmp_path, CLASSES)
    with rasterio.open(path, "r+") as target:
        target.write_colormap(1, {i: (*rgb.tolist(), 255) for i, rgb in enumerate(RGB)})
    np.testing.assert_array_equal(load_mask(read(tmp_path, INKS)), CLASSES)
    by_value = {"house": 1, "road": 2, "water": 3}
    np.testing.assert_array_equal(load_mask(read(tmp_path, by_value)), CLASSES)


def test_what_is_background_or_ignored_can_be_named(tmp_path):
    write_town(tmp_path, VALUES[CLASSES])
    scene = read(tmp_path, {"background": 7, "road": 300, "ignored": 2})
    expected = np.array([0, 0, 1, 255], np.uint8)[CLASSES]
    np.testing.assert_array_equal(load_mask(scene), expected)


@pytest.mark.parametrize(("nodata", "there"), [(300, 255), (0, 0)])
def test_nodata_is_ignored_but_0_is_background(tmp_path, nodata, there):
    write_town(tmp_path, VALUES[CLASSES], nodata=nodata)
    classes = {name: code for name, code in TABLE.items() if code != nodata}
    numbers = {7: 1, 2: 2 + (nodata == 0), 300: 2, 0: 0, nodata: there}
    expected = np.array([numbers[value] for value in VALUES.tolist()])[CLASSES]
    np.testing.assert_array_equal(load_mask(read(tmp_path, classes)), expected)


@pytest.mark.parametrize("codes", [["house", "way", "lake"], [7, 300, 2]])
def test_an_attribute_tells_outlines_apart(tmp_path, codes):
    boxes = [(5, 5, 25, 25), (15, 15, 50, 20), (30, 2, 40, 30)]
    kinds = [codes[1], codes[0], codes[2]]
    kinds = np.array(kinds, object if isinstance(codes[0], str) else np.int32)
    write_shapes(tmp_path, boxes, kind=kinds, no=np.arange(3))
    classes = dict(zip(("house", "road", "water"), codes, strict=True))
    scene = read(tmp_path, classes, attribute="kind")
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[15:20, 15:50] = 1  # the order is that of the table, not of the file
    expected[5:25, 5:25] = 2
    expected[2:30, 30:40] = 3
    np.testing.assert_array_equal(load_mask(scene), expected)
    part = Window(10, 20, 15, 25)
    np.testing.assert_array_equal(
        load_mask(scene._replace(area=part)), expected[part.slices]
    )
    some = {"road": codes[1], "background": codes[0], "ignored": codes[2]}
    left = read(tmp_path, some, attribute="kind")
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[5:25, 5:25], expected[2:30, 30:40] = 1, 255
    np.testing.assert_array_equal(load_mask(left), expected)


def test_parts_of_an_outline_keep_its_attribute(tmp_path):
    boxes = [shapely.box(0, 0, 1, 1), shapely.box(2, 0, 3, 1), shapely.box(4, 0, 5, 1)]
    shapes = [shapely.MultiPolygon(boxes[:2]), boxes[2]]
    pyogrio.raw.write(
        tmp_path / "town.gpkg",
        shapely.to_wkb(shapes),
        [np.array(["a", "b"], object)],
        ["kind"],
        geometry_type="Unknown",
        crs="EPSG:32645",
    )
    outlines, kinds = read_attribute(tmp_path / "town.gpkg", UTM, None, "kind")
    assert kinds.tolist() == ["a", "a", "b"]
    assert [shape.bounds[0] for shape in outlines] == [0, 2, 4]


def test_the_six_classes_of_potsdam_are_told_by_their_colours(tmp_path):
    root = archives.write_potsdam(tmp_path / "Potsdam", [(2, 10), (2, 11)])
    scene = read_dataset("potsdam", root, validation=0.0, classes=COLOURS).train[0]
    assert scene.classes.names == tuple(COLOURS)
    picture = archives.make_picture(2, 10)
    label = archives.colour(picture.mask, 2, 10)
    palette = np.array([tuple(bytes.fromhex(c[1:])) for c in scene.classes.colours])
    mask = load_mask(scene)
    assert set(np.unique(mask)) == {1, 2, 3, 4, 5, 6}
    np.testing.assert_array_equal(palette[mask - 1], label)
    alone = read_dataset("potsdam", root, validation=0.0).train[0]
    np.testing.assert_array_equal(load_mask(alone), mask == 2)
    eroded = read_dataset(
        "potsdam", root, validation=0.0, classes={"car": "#FFFF00"}, labels="eroded"
    ).train[0]
    edge = archives.boundary_of(picture.mask)
    expected = np.where(edge, 255, mask == 5)
    np.testing.assert_array_equal(load_mask(eroded), expected)


def test_classes_are_cached_by_their_codes(tmp_path):
    write_town(tmp_path, VALUES[CLASSES])
    scenes = [read(tmp_path, dict(table)) for table in (TABLE, reversed(TABLE.items()))]
    for scene in (*scenes, *scenes):
        data = load_cached(scene, tmp_path / "cache")
        assert data.mask.is_cached
        np.testing.assert_array_equal(np.asarray(data.mask), load_scene(scene).mask)
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize(
    ("classes", "mask", "message"),
    [
        (
            {"house": 7, "road": 300},
            VALUES[CLASSES],
            "a mask must have the values of its classes, got 2 at row {row}, column "
            "{column}: {path}",
        ),
        (
            {"house": "#ff0000", "water": "#0000fe"},
            RGB[CLASSES],
            "a mask must have the colours of its classes, got #808080 at row",
        ),
        (INKS, CLASSES, "need a mask of three bands of 8 bits, or with a palette, got"),
        ({"house": "residential"}, CLASSES, "told by values or colours, not by an"),
    ],
)
def test_a_mask_of_other_classes_is_named(tmp_path, classes, mask, message):
    path = write_town(tmp_path, mask)
    row, column = np.argwhere(CLASSES == 3)[0]
    with pytest.raises(ValueError) as caught:
        load_mask(read(tmp_path, classes))
    assert message.format(row=row, column=column, path=path) in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("classes", "settings", "message"),
    [
        (
            {"house": "house"},
            {"attribute": "kind"},
            "outlines must have the classes house as kind, got 'way': ",
        ),
        ({"house": "house"}, {}, "outlines must have an attribute 'class': "),
        ({"house": "#ff0000"}, {}, "told by an attribute, not by colours: "),
    ],
)
def test_outlines_of_other_classes_are_named(tmp_path, classes, settings, message):
    boxes = [(5, 5, 25, 25), (30, 2, 40, 30)]
    path = write_shapes(tmp_path, boxes, kind=np.array(["house", "way"], object))
    with pytest.raises(ValueError, match=message + str(path)):
        load_mask(read(tmp_path, classes, **settings))


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"a": 1, "b": 1}, "dataset.classes must differ, a and b are both 1"),
        ({"a": "#Ff0000", "b": "#fF0000"}, "a and b are both '#fF0000'"),
        ({"a": 1, "b": "#ff0000"}, "must all be values, all colours or .* got 1 and"),
        ({"contact": 1}, "none of them contact, got contact"),
        ({"background": 3}, "1 to 250 names beside background and ignored"),
        ({"a": 1.5}, r"classes\.a must be a valid integer or must be a valid string"),
    ],
)
def test_classes_that_cannot_be_told_apart(classes, message):
    with pytest.raises(ValueError, match=message):
        make_settings(FolderSettings, {"classes": classes})


def test_a_class_of_potsdam_has_one_of_its_colours(tmp_path):
    with pytest.raises(ValueError, match=r"must be among #ffffff, .* got '#123456' f"):
        read_dataset("potsdam", tmp_path, classes={"car": "#123456"})


def test_numbers_follow_the_table():
    table = ClassTable.of({"b": 2, "a": 1})
    assert table.names == ("b", "a")
    assert table.colours == default_colours(2)
    values = np.array([[1, 2, 0]])
    numbers = table.decode(values, values >= 0, "x.tif", Window(0, 0, 1, 3))
    assert numbers.tolist() == [[2, 1, 0]]
