"""Gradients on whichever backend Keras runs."""

import keras
from keras import ops


def value_and_gradient(function, y, jit=False):
    """Return the number that a function makes of an array, and its gradient.

    Args:
        function: Callable from an array to a number.
        y: The array.
        jit: Whether JAX compiles the function.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        y = tf.convert_to_tensor(y)
        with tf.GradientTape() as tape:
            tape.watch(y)
            value = function(y)
        slope = tape.gradient(value, y)
    elif backend == "jax":
        import jax

        differentiated = jax.value_and_grad(function)
        if jit:
            differentiated = jax.jit(differentiated)
        value, slope = differentiated(ops.convert_to_tensor(y))
    else:
        y = ops.convert_to_tensor(y).detach().requires_grad_()
        value = function(y)
        value.backward()
        value, slope = value.detach(), y.grad
    return float(value), ops.convert_to_numpy(ops.cast(slope, "float32"))


def gradient(function, y):
    """Return the gradient alone, of a function that JAX compiles."""
    return value_and_gradient(function, y, jit=True)[1]
