"""Values that rasters of ours hold, and what they mean."""

IGNORED = 255  # in a mask: nothing is known there, it counts nowhere
PROBABILITY_SCALE = 254  # in a map of probabilities: the value of probability 1
