"""The cost of losses of boundaries, forward and backward, beside others.

    python benchmarks/loss_speed.py > table.md     (10 minutes on 2 cores)
    python benchmarks/loss_speed.py --combined     (the combined loss only)

"The usual way" is Eqs. 1 to 4 written with the framework's own max-pooling. All
figures of a row come from one run, interleaved, so that other work on the machine
slows all of them; they are medians. PyTorch is timed, eagerly, where it is installed.
"""

import importlib.util
import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from scipy import ndimage
from timing import Step, describe_machine, time_steps

from bdloss import losses
from bdloss.models import build_model

SHAPES = ((8, 256, 256), (8, 512, 512), (2, 1024, 1024))
THETAS = (5, 9, 15)
ROUNDS = 7
MODES = {"graph": False, "jit_compile": True}
TORCH = importlib.util.find_spec("torch") is not None


def draw_maps(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Draw blobs as truth, and a soft prediction that resembles them."""
    noise = np.random.default_rng(0).normal(size=(2, *shape))
    smooth = ndimage.gaussian_filter(noise, (0, 0, 8, 8)) * 40
    true = (smooth[0] > 0).astype("float32")[..., None]
    pred = 1 / (1 + np.exp(-(smooth[0] + smooth[1] / 2)))
    return true, pred.astype("float32")[..., None]


def usual_way(true, pred, theta: int):
    """Eqs. 1 to 4 with TensorFlow's max-pooling."""

    def pool(y, side):
        return tf.nn.max_pool2d(y, side, 1, "SAME")

    edge_true, edge_pred = (pool(1 - y, 3) - (1 - y) for y in (true, pred))
    hit = tf.reduce_sum(edge_pred * pool(edge_true, theta), (1, 2))
    found = tf.reduce_sum(edge_true * pool(edge_pred, theta), (1, 2))
    precision = (hit + 1) / (tf.reduce_sum(edge_pred, (1, 2)) + 1)
    recall = (found + 1) / (tf.reduce_sum(edge_true, (1, 2)) + 1)
    return 1 - 2 * precision * recall / (precision + recall)


def tensorflow_losses(theta: int) -> dict[str, Callable]:
    return {
        "BCE": keras.losses.binary_crossentropy,
        "Dice": losses.dice_loss,
        "usual way": lambda true, pred: usual_way(true, pred, theta),
        "ours": lambda true, pred: losses.boundary_loss(true, pred, theta=theta),
        "oriented": lambda true, pred: losses.oriented_boundary_loss(
            true, pred, theta=theta
        ),
    }


def tensorflow_step(loss: Callable, shape: tuple[int, ...], jit: bool) -> Step:
    true, pred = (tf.constant(y) for y in draw_maps(shape))

    @tf.function(jit_compile=jit)
    def step(true, pred):
        with tf.GradientTape() as tape:
            tape.watch(pred)
            value = tf.reduce_mean(loss(true, pred))
        return value, tape.gradient(value, pred)

    return lambda: [result.numpy() for result in step(true, pred)]


def torch_step(shape: tuple[int, ...], theta: int) -> Step:
    import torch
    from torch.nn.functional import max_pool2d

    def pool(y, side):
        return max_pool2d(y, side, 1, side // 2)

    true, pred = (torch.from_numpy(y).movedim(-1, 1) for y in draw_maps(shape))
    pred.requires_grad_()

    def step():
        pred.grad = None
        edge_true, edge_pred = (pool(1 - y, 3) - (1 - y) for y in (true, pred))
        hit = (edge_pred * pool(edge_true, theta)).sum((2, 3))
        found = (edge_true * pool(edge_pred, theta)).sum((2, 3))
        precision = (hit + 1) / (edge_pred.sum((2, 3)) + 1)
        recall = (found + 1) / (edge_true.sum((2, 3)) + 1)
        score = 2 * precision * recall / (precision + recall)
        loss = (1 - score).mean()
        loss.backward()
        return loss.item(), pred.grad

    return step


def measure_memory(name: str, shape: tuple[int, ...], theta: int, jit: bool) -> float:
    """Return what the first steps need at their peak, in MB (Linux), code included."""
    loss = tensorflow_losses(theta)[name]
    tensorflow_step(loss, (1, 32, 32), jit)()  # starts what all losses need
    step = tensorflow_step(loss, shape, jit)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before = read_memory("VmRSS")
    for _ in range(3):
        step()
    return read_memory("VmHWM") - before


def read_memory(field: str) -> float:
    """Return a figure of this process in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if field in line) / 1024


def time_training(shape: tuple[int, ...]) -> dict[str, float]:
    """Return the time of a step of a ResNet34 U-Net, and of our loss in it, in ms."""
    true, _ = draw_maps(shape)
    pixels = np.random.default_rng(1).uniform(0, 255, (*shape, 3)).astype("float32")
    model = build_model("resnet34")
    model.compile("adam", losses.CombinedLoss(), jit_compile=False)
    loss = tensorflow_losses(5)["ours"]
    return time_steps(
        {
            "network": lambda: model.train_on_batch(pixels, true),
            "graph": tensorflow_step(loss, shape, False),
            "jit_compile": tensorflow_step(loss, shape, True),
        },
        rounds=5,
    )


def time_combined(shape: tuple[int, ...]) -> dict[str, float]:
    """Return the time of a step of the combined loss with ignored pixels, in ms."""
    part = losses.BoundaryLoss(ignore=255)
    combined = losses.CombinedLoss(part, w=0.3, ignore=255)
    steps = {mode: tensorflow_step(combined, shape, jit) for mode, jit in MODES.items()}
    if hasattr(combined, "validate"):
        checked = losses.CombinedLoss(w=0.3, ignore=255, validate=True)
        steps |= {
            f"{mode}, validated": tensorflow_step(checked, shape, jit)
            for mode, jit in MODES.items()
        }
    return time_steps(steps, 5 * ROUNDS)


def main() -> None:
    if "--combined" in sys.argv:
        for mode, ms in time_combined(SHAPES[0]).items():
            print(f"combined loss, 8 x 256², {mode}: {ms:.2f} ms")
        return
    names = [*tensorflow_losses(5), *(["usual way, PyTorch"] if TORCH else [])]
    ratios = (("usual way", "ours"), ("ours", "BCE"), ("oriented", "ours"))
    headings = [*names, *(f"{a.split()[0]} / {b}" for a, b in ratios)]
    print(f"| batch | theta | mode | {' | '.join(headings)} |")
    print("|---|---|---" + "|---:" * len(headings) + "|")
    for shape in SHAPES:
        size = f"{shape[0]} x {shape[1]}²"
        for theta in THETAS:
            for mode, jit in MODES.items():
                steps = {
                    name: tensorflow_step(loss, shape, jit)
                    for name, loss in tensorflow_losses(theta).items()
                }
                if TORCH:
                    steps["usual way, PyTorch"] = torch_step(shape, theta)
                ms = time_steps(steps, ROUNDS)
                cells = [f"{ms[name]:.1f}" for name in names]
                cells += [f"{ms[a] / ms[b]:.1f}" for a, b in ratios]
                print(
                    f"| {size} | {theta} | {mode} | {' | '.join(cells)} |", flush=True
                )
    spawn = multiprocessing.get_context("spawn")
    for mode, jit in MODES.items():
        cells = []
        for name in tensorflow_losses(5):
            with spawn.Pool(1) as pool:  # that nothing else has used
                cells.append(
                    f"{pool.apply(measure_memory, (name, SHAPES[1], 5, jit)):.0f}"
                )
        cells += [""] * (len(headings) - len(cells))
        print(f"| 8 x 512², MB | 5 | {mode} | {' | '.join(cells)} |", flush=True)
    ms = time_training(SHAPES[0])
    print(f"\nTimes in ms, forward and backward. {describe_machine()}.")
    shares = ", ".join(f"{ms[m]:.1f} ms ({ms[m] / ms['network']:.2%})" for m in MODES)
    print(
        f"A training step of a ResNet34 U-Net at 8 x 256² takes {ms['network']:.0f} "
        f"ms; our loss at theta 5 in {', '.join(MODES)}: {shares}."
    )


if __name__ == "__main__":
    main()
