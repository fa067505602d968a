"""What tests share: a cache that goes away, and a model that knows bright from dark."""

import numpy as np
import pytest


@pytest.fixture(autouse=True, scope="session")
def cache_of_the_tests(tmp_path_factory):
    """Keep decoded scenes in a folder that goes away."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture(scope="session")
def bright_model(tmp_path_factory):
    """File of a network that calls a pixel building whose bands sum up to over 375."""
    import keras

    from bdloss import models

    pixels = keras.Input((None, None, 3))
    conv = keras.layers.Conv2D(1, 1, activation="sigmoid", name="conv")
    bright = keras.Model(pixels, conv(pixels))
    conv.set_weights([np.full((1, 1, 3, 1), 0.1), np.array([-37.55])])
    path = tmp_path_factory.mktemp("model") / "bright.keras"
    models.save_model(bright, path, {"window": 32})
    return path
