"""Values that rasters of ours hold, names, and what they mean."""

IGNORED = 255  # in a mask: nothing is known there, it counts nowhere
BUILDING = "building"  # name of the class where there is no other
CONTACT = "contact"  # name of the map that says where two buildings are in contact
AUTO = "auto"  # where a setting is left to us
KERAS = "keras"  # the engine where no other is named
ENGINES = (KERAS, "onnxruntime", "openvino")  # that compute a network at prediction
PROBABILITY_SCALE = 254  # in a map of probabilities: the value of probability 1
