"""Devices: one, several of a machine, or several processes that train one network.

On one machine TensorFlow mirrors the network on its devices, JAX shares out batches
among them. Several processes, of one machine or many, train together on JAX.
"""

import contextlib
import os
from contextlib import AbstractContextManager
from typing import NamedTuple

import keras

from bdloss.errors import InputError

PROCESSES = "KERAS_DISTRIBUTION_NUM_PROCESSES"
SLURM_PROCESSES = "SLURM_STEP_NUM_TASKS"  # only of what `srun` has started


class Devices(NamedTuple):
    """Devices that train one network, each on its share of every batch.

    Attributes:
        scope: Where networks, losses and optimizers of these devices are made and used.
        name: What they are, for a person.
        number: How many they are, in all processes.
        process: Which process this is, from 0. The first one, the chief, writes
            and logs.
        processes: How many train together.
    """

    scope: AbstractContextManager = contextlib.nullcontext()
    name: str = "1 device"
    number: int = 1
    process: int = 0
    processes: int = 1

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that writes and logs."""
        return self.process == 0

    def wait(self) -> None:
        """Wait until all processes are here, with what they have written."""
        if self.processes > 1:
            from jax.experimental import multihost_utils

            multihost_utils.sync_global_devices("bdloss")


ALONE = Devices()


def join_processes() -> None:
    """Find the other processes, if Keras's variables or SLURM say there are some.

    Must come before anything is computed.

    Raises:
        ValueError: If the backend is not JAX.
    """
    several = {int(os.environ.get(name, 1)) for name in (PROCESSES, SLURM_PROCESSES)}
    if several == {1}:
        return
    if keras.backend.backend() != "jax":
        raise InputError(
            "several processes train together on KERAS_BACKEND=jax, "
            f"got {keras.backend.backend()}"
        )
    keras.distribution.initialize()


def select_devices(devices: str = "1", batch: int = 1) -> Devices:
    """Choose the devices to train on.

    Args:
        devices: How many of this machine, or `all`; several processes use all theirs.
        batch: Patches that they share.

    Returns:
        The devices.

    Raises:
        ValueError: If there are not so many, or they cannot share a batch equally.
    """
    backend = keras.backend.backend()
    names = ["cpu:0"] if backend == "torch" else keras.distribution.list_devices()
    process, processes = 0, 1
    if backend == "jax":
        import jax

        process, processes = jax.process_index(), jax.process_count()
    if devices != "all" and not (devices.isdecimal() and int(devices) > 0):
        raise InputError(f"devices must be a number above 0, or all, got {devices}")
    count = len(names) if devices == "all" or processes > 1 else int(devices)
    if count > len(names):
        raise InputError(f"devices must be at most the {len(names)} here, got {count}")
    if batch % count:
        raise InputError(f"{count} devices must share a batch equally, got {batch}")
    kind = names[0].partition(":")[0].upper()
    name = f"{count} {kind}{'s' * (count > 1)}"
    if processes > 1:
        name += f" in {processes} processes"
    if count == 1:
        return Devices(name=name)
    if backend == "tensorflow":
        import tensorflow as tf

        scope = tf.distribute.MirroredStrategy(names[:count]).scope()
    else:
        scope = keras.distribution.DataParallel(
            devices=names[:count], auto_shard_dataset=False
        ).scope()
    return Devices(scope, name, count, process, processes)
