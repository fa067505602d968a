"""Sharp building edges from orthophotos: the boundary loss for Keras."""

__version__ = "0.2.0"
