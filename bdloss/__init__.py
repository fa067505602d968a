"""Sharp building edges from orthophotos: the boundary loss for Keras."""

__version__ = "0.1.0"
