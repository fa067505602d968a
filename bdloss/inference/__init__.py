"""From an orthophoto to its map: windows, model, seamless rows, products."""

from bdloss.inference.predict import PredictionResult, merge_shards, predict_raster
from bdloss.inference.products import Products
from bdloss.inference.settings import InferenceSettings
from bdloss.inference.sliding_window import predict_array

__all__ = [
    "InferenceSettings",
    "PredictionResult",
    "Products",
    "merge_shards",
    "predict_array",
    "predict_raster",
]
