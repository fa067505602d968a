"""Upsampling and the convolution after it in one step, for OpenVINO.

    conv(concat(repeat(x), skip)) = transposed_conv(x) + conv(skip)

Of a kernel of 3 x 3 over pixels that are repeated twice each way, several weights meet
the same pixel. Their sums are a kernel of 4 x 4 with a stride of 2, which needs 4 of 9
multiplications, and no map of the repeated pixels. ONNX Runtime has no fast transposed
convolution, and would gain nothing.
"""

from typing import Any

import numpy as np

# Which of the three weights each of the four is the sum of, along an axis.
SUMS = np.array([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]], np.float32)


def merge_upsampling(model: Any) -> int:
    """Put one step in the place of upsampling and the convolution after it.

    Args:
        model: An `openvino.Model`, which is changed.

    Returns:
        How many convolutions were.
    """
    from openvino import opset13 as ops

    merged = 0
    for conv in model.get_ordered_ops():
        if conv.get_type_name() != "Convolution" or not _is_plain(conv):
            continue
        given, kernel = conv.input_value(0), conv.input_value(1).get_node().data
        parts, before = [given], given.get_node()
        if before.get_type_name() == "Concat" and before.get_attributes()["axis"] == 1:
            parts = before.input_values()
        if not _repeats_twice(parts[0].get_node()):
            continue
        number = parts[0].get_partial_shape()[1].get_length()
        repeated, others = np.split(kernel, [number], axis=1)
        spread = np.einsum("ai,bj,ocij->coab", SUMS, SUMS, repeated)
        small = parts[0].get_node().input_value(0)
        both = {"pads_begin": [1, 1], "pads_end": [1, 1]}
        maps = ops.convolution_backprop_data(
            small, ops.constant(spread), strides=[2, 2], **both
        )
        if len(parts) > 1:
            rest = parts[1] if len(parts) == 2 else ops.concat(parts[1:], axis=1)
            conv_of_rest = ops.convolution(
                rest, ops.constant(others.copy()), [1, 1], dilations=[1, 1], **both
            )
            maps = ops.add(maps, conv_of_rest)
        conv.output(0).replace(maps.output(0))
        merged += 1
    return merged


def _is_plain(conv: Any) -> bool:
    """Return whether a kernel of 3 x 3 sees each pixel, and zeros beyond the edge."""
    kernel, said = conv.input_value(1).get_node(), conv.get_attributes()
    if kernel.get_type_name() != "Constant" or kernel.data.shape[2:] != (3, 3):
        return False
    padded = said["auto_pad"] in ("same_upper", "same_lower") or (
        said["auto_pad"] == "explicit"
        and said["pads_begin"] == said["pads_end"] == [1, 1]
    )
    return padded and said["strides"] == said["dilations"] == [1, 1]


def _repeats_twice(node: Any) -> bool:
    """Return whether a step repeats each pixel twice each way."""
    if node.get_type_name() != "Interpolate":
        return False
    said, scales = node.get_attributes(), node.input_value(1).get_node()
    wanted = {
        "mode": "nearest",
        "shape_calculation_mode": "scales",
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "floor",
    }
    constant = scales.get_type_name() == "Constant"
    return (
        wanted.items() <= said.items()
        and constant
        and list(scales.data) == [1, 1, 2, 2]
    )
