"""Where a training starts: a trained model, its network and its weights.

Its heads are taken map by map: one of a name that it knows goes on, another is new.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bdloss import models
from bdloss.constants import BUILDING
from bdloss.errors import InputError

HEAD = "final"  # how the name of the layer begins that gives the maps
BACKGROUND = "background"  # what a softmax has a map of that is not given out


def network_of(path: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a network that starts from a trained model.

    Args:
        path: The file of a model that `bdloss train` made.
        given: Settings that were named; they must be those of the model, but for
            `activation`, which is of its heads.

    Returns:
        Settings of the network, for `[model]` of an experiment.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such model, or has another network.
    """
    network = models.read_metadata(path).get("network")
    if network is None:
        raise InputError(f"a model to start from must be of bdloss train, got {path}")
    for key, value in network.items():
        if key in given and key != "activation" and given[key] != value:
            raise InputError(
                f"{path} has model.{key} = {value!r}, not {given[key]!r}; leave it "
                "out, or begin anew with model.start = ''"
            )
    return {**network, **given}


def copy_weights(
    network: keras.Model,
    targets: Sequence[str],
    activation: str,
    path: Path,
    share: float = 1.0,
) -> list[str]:
    """Give a network the weights of a trained model, or mix them with its own.

    The mean of the weights before and after fine-tuning knows what both know (Wortsman
    et al. 2022, "Robust fine-tuning of zero-shot models").

    Args:
        network: The network, of the settings that `network_of` returned.
        targets: Names of its maps.
        activation: What makes probabilities of them: `sigmoid` or `softmax`.
        path: The file of the model.
        share: That of the model in the mean, in (0, 1]; the rest is the network's own.

    Returns:
        Names of the maps whose heads are new, which stay as they are.

    Raises:
        ValueError: If its network has other bands or other layers.
    """
    trained, metadata = models.load_model(path)
    bands, taken = network.input_shape[-1], trained.input_shape[-1]
    if bands != taken:
        raise InputError(
            f"{path} takes {taken} bands, the data have {bands}; dataset.bands chooses "
            "some, model.start = '' begins anew"
        )
    known = metadata.get("targets", metadata.get("classes", [BUILDING]))
    if metadata.get("network", {}).get("activation") != activation:
        known = []
    ours, others = (
        [BACKGROUND, *names] if activation == "softmax" else list(names)
        for names in (targets, known)
    )
    shared = [name for name in ours if known and name in others]
    to, at = ([names.index(name) for name in shared] for names in (ours, others))
    layers = models.flatten_layers(network), models.flatten_layers(trained)
    try:
        for layer, other in zip(*layers, strict=True):
            weights = [np.array(w) for w in layer.get_weights()]
            for mine, theirs in zip(weights, other.get_weights(), strict=True):
                if layer.name.startswith(HEAD):
                    mine[..., to] = _mean(mine[..., to], theirs[..., at], share)
                else:
                    mine[...] = _mean(mine, theirs, share)
            layer.set_weights(weights)
    except ValueError as error:
        raise InputError(f"the network of {path} has other layers") from error
    return [name for name in targets if name not in known]


def _mean(mine: np.ndarray, theirs: np.ndarray, share: float) -> np.ndarray:
    """Return the mean of two weights; `theirs`, bit for bit, if their share is all."""
    if mine.shape != theirs.shape:
        raise ValueError(f"weights of shapes {mine.shape} and {theirs.shape}")
    return theirs if share == 1.0 else (1.0 - share) * mine + share * theirs
