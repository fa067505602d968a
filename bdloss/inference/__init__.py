"""From an orthophoto to its map: windows, model, seamless rows, products."""

from bdloss.inference.raster_prediction import predict_array, predict_raster

__all__ = ["predict_array", "predict_raster"]
