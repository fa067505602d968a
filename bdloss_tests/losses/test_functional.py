"""What the public losses say that they take is what they take."""

import inspect
import re
import typing

import pytest

from bdloss import losses

FUNCTIONS = {
    "bce": losses.binary_crossentropy,
    "iou": losses.iou_loss,
    "boundary": losses.boundary_loss,
    "oriented": losses.oriented_boundary_loss,
    "edge": losses.edge_crossentropy,
    "dice": losses.dice_loss,
    "ss": losses.ss_loss,
    "vgg": losses.vgg_loss,
}
SHARED = {
    "from_logits",
    "ignore",
    "class_weights",
    "batch",
    "data_format",
    "validate",
}
OWN = {
    "boundary": {"theta0", "theta", "smooth", "boundary", "pool"},
    "oriented": {"theta", "smooth"},
    "edge": {"theta"},
    "ss": {"lam"},
    "iou": {"smooth"},
    "dice": {"smooth"},
    "vgg": {"extractor"},
    "bce": set(),
    "combined": {"extra", "w", "bce"},
}


def documented(text):
    """Return the names in the `Args` of a docstring of Google's style."""
    part = re.search(r"\n *Args:\n(.*?)\n\n", inspect.cleandoc(text) + "\n\n", re.S)
    return re.findall(r"^    (\w+): ", part[1], re.M)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_shows_and_documents_every_argument(name):
    function = FUNCTIONS[name]
    parameters = inspect.signature(function).parameters
    assert documented(function.__doc__) == list(parameters)
    assert list(parameters)[:2] == ["y_true", "y_pred"]
    assert set(parameters) == {"y_true", "y_pred"} | SHARED | OWN[name]
    assert set(typing.get_type_hints(function)) == set(parameters) - {
        "y_true",
        "y_pred",
    }


@pytest.mark.parametrize("name", losses.NAMES)
def test_class_shows_and_documents_every_argument(name):
    loss = losses.NAMES[name]
    parameters = inspect.signature(loss).parameters
    assert documented(loss.__doc__) == list(parameters)
    assert set(parameters) == SHARED | OWN[name] | {"name", "reduction"}
    assert set(typing.get_type_hints(loss.__init__)) == set(parameters)


@pytest.mark.parametrize("name", losses.NAMES)
def test_class_and_function_have_the_same_defaults(name):
    if name == "combined":
        return
    shown = inspect.signature(FUNCTIONS[name]).parameters
    for key, parameter in inspect.signature(losses.NAMES[name]).parameters.items():
        if key in shown and key != "extractor":
            assert shown[key].default == parameter.default
