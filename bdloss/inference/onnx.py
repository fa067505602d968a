"""Export of a model to ONNX, with what the QGIS plugin Deepness and GeoDeep read.

    patches 0..1, bands first -> 0..255, bands last -> network -> maps, bands first

Both programs cut patches of `tile_size` at `resolution`, divide their pixels by 255,
standardise them, set values below `seg_thresh` to 0, and take the channel that is
largest. So there is one channel more than classes, and the background's, the first, is
0: at any threshold a pixel is of a class exactly where its probability reaches it and
no other's is higher. A map of contact is none of them.
"""

import importlib.util
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from bdloss.errors import InputError
from bdloss.files import atomic_path, refuse_existing
from bdloss.models import Predictor

NEEDED = ("onnx", "tf2onnx")
SIZES = ("Concat", "Cast")  # of ONNX, which put the sizes of maps together
REPEAT = "bdloss_repeat"  # in the names of what `_Repeat` computes
OVERLAP = 25  # per cent of a patch, as in prediction
CENTIMETRES = 100  # a metre


def export_onnx(
    predictor: Predictor,
    path: Path,
    window: int | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a model as an ONNX file that needs neither Keras nor this package.

    Its input is `image`, float32 of shape `(batch, bands, window, window)` in [0, 1];
    its output `maps`, float32 of shape `(batch, 1 + classes, window, window)`: 0, and
    the probability of each class. The batch may be of any size.

    Args:
        predictor: A model, from `models.load_predictor`.
        path: File to write.
        window: Side of the patches, in pixels; None for the model's.
        overwrite: Whether a file that exists may be replaced.

    Returns:
        The metadata that stand in the file, as `describe_model` gives them.

    Raises:
        FileExistsError: If the file exists and may not be replaced.
        FileNotFoundError: If there is no such folder.
        ValueError: If it is no Keras model, the packages that write ONNX are not
            installed, Keras does not run on TensorFlow, or the network cannot take such
            a window.
    """
    if predictor.load_network is None:
        raise InputError("only a Keras model is exported, got another callable")
    check_converter()
    refuse_existing(path, overwrite)
    side = predictor.patch_size if window is None else window
    predictor.check_window(side)
    metadata = describe_model(predictor, side)
    classes = len(predictor.classes)
    with atomic_path(path) as partial:
        shape = (None, predictor.band_count, side, side)
        network = _with_bands_first(predictor.load_network(), classes, side)
        convert_network(network, partial, shape)
        _name_and_describe(partial, metadata)
    return metadata


def check_converter() -> None:
    """Refuse to convert where the packages for it are missing.

    Raises:
        ValueError: If they are not installed, or Keras does not run on TensorFlow.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"ONNX export needs {' and '.join(missing)}: pip install 'bdloss[onnx]'"
        )
    if keras.backend.backend() != "tensorflow":
        raise InputError(
            f"ONNX export runs on TensorFlow, got Keras on {keras.backend.backend()}"
        )


def convert_network(
    network: keras.Model, path: Path, shape: Sequence[int | None]
) -> None:
    """Write a network as ONNX.

    `UpSampling2D` becomes one step of ONNX, which engines fuse with its neighbours,
    where the converter would make six, a third of the time of a network.

    The converter copies what it is given some forty times: 9 GB for the weights of
    ResNet34, 98 MB. So it is given the network without the large ones, the kernels, and
    they are added to what it has written.

    Args:
        network: The network.
        path: File to write.
        shape: Of its input, `image`: four sizes; None where any will do.

    Raises:
        Exception: What the converter raises, if ONNX cannot hold the network.
    """
    import onnx

    network = _with_one_step(network)
    kernels = {
        f"kernel_{number}": weight
        for number, weight in enumerate(network.weights)
        if len(weight.shape) > 1
    }
    given = [keras.InputSpec(shape=tuple(shape), dtype="float32", name="image")]
    for name, kernel in kernels.items():
        spec = keras.InputSpec(shape=tuple(kernel.shape), dtype=kernel.dtype, name=name)
        given.append(spec)
    with warnings.catch_warnings():  # of what the converter does inside
        warnings.simplefilter("ignore")
        _WithoutKernels(network, list(kernels.values())).export(
            path, format="onnx", verbose=False, input_signature=[given]
        )
    model = onnx.load(path)
    left = [tensor for tensor in model.graph.input if tensor.name not in kernels]
    del model.graph.input[:]
    model.graph.input.extend(left)
    arrays = {name: keras.ops.convert_to_numpy(kernels[name]) for name in kernels}
    _fold_constants(model, arrays)
    _fix_scales(model, arrays)
    _finish_output(model, arrays)
    _keep_used(model, arrays)
    onnx.save(model, path)


def _with_one_step(network: keras.Model) -> keras.Model:
    """Return a network of the same layers, but with `_Repeat` in place of others."""

    def replace(layer: layers.Layer) -> layers.Layer:
        if isinstance(layer, layers.UpSampling2D) and (
            (layer.interpolation, layer.data_format) == ("nearest", "channels_last")
        ):
            return _Repeat(layer)
        return layer

    try:
        return keras.models.clone_model(network, clone_function=replace, recursive=True)
    except ValueError:  # it is not a graph of layers
        return network


class _Repeat(layers.Layer):
    """Repeats pixels as another layer does, in one step.

    Args:
        layer: The other layer.
    """

    def __init__(self, layer: layers.UpSampling2D):
        super().__init__(name=layer.name, dtype=layer.dtype_policy)
        self._layer = layer

    def call(self, maps: Any) -> Any:
        """Return larger maps."""
        import tensorflow as tf

        sides = tf.multiply(tf.shape(maps)[1:3], self._layer.size, name=REPEAT)
        return tf.raw_ops.ResizeNearestNeighbor(images=maps, size=sides)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shape of the larger maps."""
        return self._layer.compute_output_shape(input_shape)


class _WithoutKernels(keras.Model):
    """A network some of whose weights are inputs, after the image.

    Args:
        network: The network.
        kernels: These weights.
    """

    def __init__(self, network: keras.Model, kernels: Sequence[keras.Variable]):
        super().__init__(name="bdloss")
        self.built = True
        these = {id(kernel) for kernel in kernels}
        others = [weight for weight in network.variables if id(weight) not in these]

        def compute(image: Any, given: Sequence[Any]) -> Any:
            values = {id(weight): weight.value for weight in others}
            values |= zip(map(id, kernels), given, strict=True)
            parts = network.trainable_variables, network.non_trainable_variables
            weights = [[values[id(weight)] for weight in part] for part in parts]
            maps, _ = network.stateless_call(*weights, image, training=False)
            return maps

        self._compute = compute  # an attribute of weights would be written too

    def call(self, inputs: Sequence[Any]) -> Any:
        """Return the maps."""
        return self._compute(inputs[0], inputs[1:])


def _fold_constants(model: Any, arrays: dict[str, np.ndarray]) -> None:
    """Compute what depends on weights alone.

    Args:
        model: The model.
        arrays: Its weights by their names; all constants are added.
    """
    from onnx import numpy_helper, reference

    graph = model.graph
    arrays |= {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    kept = []
    for node in graph.node:
        if all(name in arrays for name in node.input):
            given = {name: arrays[name] for name in node.input}
            computed = reference.ReferenceEvaluator(node).run(None, given)
            arrays |= dict(zip(node.output, computed, strict=True))
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def _fix_scales(model: Any, arrays: dict[str, np.ndarray]) -> None:
    """Say how many times larger `_Repeat` makes maps, not how large.

    Engines fuse it only then.

    Args:
        model: The model.
        arrays: Its constants by their names, to which scales are added.
    """
    graph = model.graph
    made = {name: node for node in graph.node for name in node.output}

    def find_factors(name: str) -> np.ndarray | None:
        """Return what sides are multiplied by, on the way to a tensor."""
        if name not in made:
            return None
        node = made[name]
        if node.op_type == "Mul" and REPEAT in name:
            return next(arrays[given] for given in node.input if given in arrays)
        found = map(find_factors, node.input) if node.op_type in SIZES else ()
        return next((factors for factors in found if factors is not None), None)

    for number, node in enumerate(graph.node):
        if node.op_type == "Resize" and len(node.input) == 4:
            factors = find_factors(node.input[3])
            if factors is not None:
                name = f"{REPEAT}_{number}"
                arrays[name] = np.array([1, 1, *factors], np.float32)
                node.input[:] = [node.input[0], "", name]


def _finish_output(model: Any, arrays: dict[str, np.ndarray]) -> None:
    """Take an axis of one from the maps that the converter may leave there.

    It turns maps by a `Reshape` that adds an axis and a `Squeeze` that takes it away,
    which it forgets where nothing else follows, in some of its runs.

    Args:
        model: The model, of one output.
        arrays: Its constants by their names, to which axes are added.
    """
    from onnx import helper

    graph = model.graph
    (maps,) = graph.output
    last = next(node for node in graph.node if maps.name in node.output)
    if last.op_type != "Reshape" or len(arrays.get(last.input[1], ())) != 5:
        return
    first, axes = f"{maps.name}_in_one", f"{maps.name}_axes"
    last.output[:] = [first]
    arrays[axes] = np.zeros(1, np.int64)
    graph.node.append(helper.make_node("Squeeze", [first, axes], [maps.name]))


def _keep_used(model: Any, arrays: dict[str, np.ndarray]) -> None:
    """Leave a model the nodes and constants that its output depends on.

    Args:
        model: The model.
        arrays: Its constants by their names.
    """
    from onnx import numpy_helper

    graph = model.graph
    kept: list[Any] = []
    used = {tensor.name for tensor in graph.output}
    for node in reversed(graph.node):  # each comes after those that it depends on
        if used.intersection(node.output):
            kept.append(node)
            used.update(node.input)
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(
        numpy_helper.from_array(array, name)
        for name, array in arrays.items()
        if name in used
    )


def describe_model(predictor: Predictor, side: int) -> dict[str, Any]:
    """Return what Deepness and GeoDeep read from a model file.

    Args:
        predictor: The model.
        side: Side of its patches, in pixels.

    Returns:
        Values by their keys: resolution in centimetres a pixel (left out if the model
        does not know its own), overlap in per cent.
    """
    metadata: dict[str, Any] = {
        "model_type": "Segmentor",
        "class_names": {
            str(number): name
            for number, name in enumerate(["background", *predictor.classes])
        },
        "tile_size": side,
        "tiles_overlap": OVERLAP,
        "seg_thresh": predictor.threshold,
        "seg_small_segment": 0,  # its median filter would round the corners
        "standardization_mean": [0.0] * predictor.band_count,
        "standardization_std": [1.0] * predictor.band_count,
    }
    if predictor.resolution is not None:
        metadata["resolution"] = round(CENTIMETRES * predictor.resolution, 3)
    return metadata


def _with_bands_first(network: keras.Model, number: int, side: int) -> keras.Model:
    """Return the network as the readers of ONNX files feed it."""
    image = keras.Input((network.input_shape[-1], side, side), name="image")
    bands_last = layers.Permute((2, 3, 1), name="bands_last")(image)
    pixels = layers.Rescaling(255.0, name="pixels")(bands_last)
    classes = layers.Permute((3, 1, 2), name="classes")(network(pixels))
    if network.output_shape[-1] > number:
        classes = classes[:, :number]
    first = classes if number == 1 else classes[:, :1]
    background = layers.Rescaling(0.0, name="background")(first)
    both = layers.Concatenate(axis=1, name="both")([background, classes])
    return keras.Model(image, both, name="bdloss")


def _name_and_describe(path: Path, metadata: dict[str, Any]) -> None:
    """Give an ONNX file its metadata, and its weights, batch and output a name."""
    import onnx

    model = onnx.load(path)
    (given,) = model.graph.output
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    used = dict.fromkeys(name for node in model.graph.node for name in node.input)
    weights = {name: weights[name] for name in used if name in weights}
    names = {name: f"weights_{number}" for number, name in enumerate(weights)}
    # The converter's own names depend on what else it has converted.
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type.lower()}_{number}"
        names |= {name: f"{node.name}_{i}" for i, name in enumerate(node.output)}
    names[given.name] = "maps"
    for node in model.graph.node:
        for ends in (node.input, node.output):
            ends[:] = [names.get(name, name) for name in ends]
    del model.graph.initializer[:]
    for name, tensor in weights.items():
        tensor.name = names[name]
        model.graph.initializer.append(tensor)
    del model.graph.value_info[:]
    model.graph.name, model.graph.doc_string = "bdloss", ""
    given.name = "maps"
    for tensor in (*model.graph.input, given):
        tensor.type.tensor_type.shape.dim[0].dim_param = "batch"
    texts = {key: json.dumps(value) for key, value in metadata.items()}
    onnx.helper.set_model_props(model, texts)
    onnx.checker.check_model(model)
    onnx.save(model, path)
