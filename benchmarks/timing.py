"""What the benchmarks of steps share: steps timed in turns, and on which machine."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import keras

Step = Callable[[], object]


def time_steps(
    steps: dict[str, Step], rounds: int, warm_up: int = 3
) -> dict[str, float]:
    """Return the median time of each step in ms, after some that do not count."""
    for step in steps.values():
        for _ in range(warm_up):
            step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            times[name].append(1e3 * (time.perf_counter() - started))
    return {name: statistics.median(values) for name, values in times.items()}


def describe_caches(info: list[str]) -> str:
    """Say how wide vectors are, and how large caches, as far as Linux tells.

    Args:
        info: Lines of `/proc/cpuinfo`.
    """
    flags = next((line.split() for line in info if line.startswith("flags")), [])
    kinds = [kind for kind in ("avx512f", "avx2") if kind in flags]
    caches = [
        f"L{(index / 'level').read_text().strip()} {(index / 'size').read_text()}"
        for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index[23]")
    ]
    return "".join(f", {text.strip()}" for text in (*kinds[:1], *sorted(caches)))


def describe_machine() -> str:
    """Say what the figures were taken on."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        details = [
            tf.config.experimental.get_device_details(gpu)["device_name"]
            for gpu in tf.config.list_physical_devices("GPU")
        ]
        version = f"TensorFlow {tf.__version__}"
    else:
        details, version = [], keras.backend.backend()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(": ")[1] for line in lines if line.startswith("model name")]
    return (
        f"{', '.join(details) or (names or [platform.processor()])[0]}"
        f"{describe_caches(lines)}, "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end; "
        f"{version}, Keras {keras.__version__}, float32"
    )
