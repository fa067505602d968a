"""From an orthophoto to its map: windows, model, seamless rows, products."""

from bdloss.inference.raster_prediction import predict_raster
from bdloss.inference.sliding_window import predict_array

__all__ = ["predict_array", "predict_raster"]
