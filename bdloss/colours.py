"""Colours of classes, as `#rrggbb`: in settings, palettes of rasters and pictures."""

import colorsys
import re

COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
GOLDEN = 0.618034  # of the circle of hues: no two of a few classes come near
FIRST_HUE, SATURATION, VALUE = 0.97, 0.75, 0.9  # a red that is seen on any ground


def default_colours(number: int) -> list[str]:
    """Return so many different colours.

    Example:
        >>> default_colours(3)
        ['#e63958', '#398be6', '#bde639']
    """
    hues = [(FIRST_HUE + index * GOLDEN) % 1 for index in range(number)]
    triples = [colorsys.hsv_to_rgb(hue, SATURATION, VALUE) for hue in hues]
    return [f"#{bytes(round(255 * part) for part in rgb).hex()}" for rgb in triples]


def rgb_of(colour: str) -> tuple[int, int, int]:
    """Return red, green and blue of a colour, 0..255.

    Example:
        >>> rgb_of("#0000ff")
        (0, 0, 255)
    """
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue
