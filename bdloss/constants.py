"""Values that rasters of ours hold, names, and what they mean."""

IGNORED = 255  # in a mask: nothing is known there, it counts nowhere
BUILDING = "building"  # name of the class where there is no other
CONTACT = "contact"  # name of the map that says where two buildings are in contact
AUTO = "auto"  # where a setting is left to us
KERAS = "keras"  # the engine where no other is named
# What computes a network at prediction, in float32; and in bfloat16, if it is named.
EXACT_ENGINES = (KERAS, "onnxruntime", "openvino")
OPENVINO_BF16 = "openvino-bf16"
ENGINES = (*EXACT_ENGINES, OPENVINO_BF16)
PROBABILITY_SCALE = 254  # in a map of probabilities: the value of probability 1
