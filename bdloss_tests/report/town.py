"""A small town whose files have awkward names, predicted."""

from dataclasses import replace

import numpy as np
import shapely
from shapely.affinity import affine_transform

from bdloss.evaluation.predictions import PredictionScores
from bdloss.geo.orthophoto import Orthophoto
from bdloss.geo.outline_writer import write_outlines
from bdloss.inference.predict import predict_raster
from bdloss.inference.products import Products
from bdloss_tests.inference.stand_ins import PREDICTOR
from bdloss_tests.scenes import CORNER, UTM, make_scene, write_raster

CLASS = "</script><img src=x onerror=alert(1)>'ß'"
NAME = "<script>alert('ü')<!--&amp;\""


def predict_town(folder, height=300, width=400, truth=True):
    """Write and predict a town; its truth lies a pixel to the right."""
    pixels, mask = make_scene(3, height, width)
    image = write_raster(folder / "images" / f"{NAME}.tif", pixels)
    products = Products.in_folder(folder / "out", NAME, prob=True)
    predict_raster(image, PREDICTOR, products)
    prediction = products.as_prediction(image)
    if truth:
        path = write_raster(folder / "truth" / f"{NAME}.tif", np.roll(mask, 1, axis=1))
        prediction = replace(prediction, truth=path)
    return prediction


def judge(prediction):
    """Return how a predicted town fits its truth; None without one."""
    orthophoto = Orthophoto.read(prediction.image)
    scores = PredictionScores(prediction.truth)
    return scores.add(orthophoto, prediction.mask, prediction.outlines, judge=True)


def write_other(folder):
    """Write outlines to compare with, one house, of a class with an awkward name."""
    house = affine_transform(shapely.box(20, 30, 60, 80), CORNER.to_shapely())
    path = folder / "other.gpkg"
    names = np.array([CLASS], object)
    write_outlines(path, [house], UTM, id=np.array([1]), **{"class": names})
    return path
