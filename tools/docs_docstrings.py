"""SpeechBrain's docstrings for the site: their heads are nearly numpy's."""

import re

import griffe

HEADS = {"Arguments": "Parameters", "Example": "Examples"}


class SpeechBrainDocstrings(griffe.Extension):
    """Gives sections the heads that numpy's parser knows."""

    def on_instance(self, *, obj, **kwargs):
        """Rename the heads of one object's docstring."""
        del kwargs
        if obj.docstring is None:
            return
        text = obj.docstring.value
        for head, name in HEADS.items():
            text = re.sub(
                rf"^{head}\n-+$",
                f"{name}\n{'-' * len(name)}",
                text,
                flags=re.MULTILINE,
            )
        # reStructuredText's sign for an example
        obj.docstring.value = re.sub(r"::$", ":", text, flags=re.MULTILINE)
