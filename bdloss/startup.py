"""How Keras is loaded: without its backend's messages, and keeping freed memory.

Workers of Dask that are told `--preload bdloss.startup` load it so too.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bdloss.memory import keep_freed_memory


def load_keras(before_devices: Callable[[], Any] | None = None) -> None:
    """Load Keras without its backend's start-up messages, and keep freed memory.

    TensorFlow writes some of them to the file descriptor, whatever its log level.

    Args:
        before_devices: Called when Keras is there, but has not looked for devices.
    """
    keep_freed_memory()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    screen = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        import keras

        if before_devices is not None:
            before_devices()
        keras.ops.zeros(())
    finally:
        os.dup2(screen, 2)
        os.close(screen)


def dask_setup(_: object) -> None:
    """Load Keras in a worker of Dask, which calls this when it starts."""
    load_keras()
