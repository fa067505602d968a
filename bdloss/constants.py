"""Values that rasters of ours hold, and what they mean."""

IGNORED = 255  # in a mask: nothing is known there, it counts nowhere
BUILDING = "building"  # name of the class where there is no other
CONTACT = "contact"  # name of the map that says where two buildings are in contact
PROBABILITY_SCALE = 254  # in a map of probabilities: the value of probability 1
