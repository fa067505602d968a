"""Extension of griffe: docstrings as this code writes them, with one "Example:"."""

import re

from griffe import Extension, Object

EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)


class Examples(Extension):
    """Call the section "Examples", the name by which griffe knows sessions."""

    def on_object(self, *, obj: Object, **_: object) -> None:
        """Rename the section of one docstring."""
        if obj.docstring:
            obj.docstring.value = EXAMPLE.sub("Examples:", obj.docstring.value)
