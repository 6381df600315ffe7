"""A notebook that was run, as a page of the site.

A few lines instead of mkdocs-jupyter, which brings nbconvert and ten more.
"""

import base64
import json
import re

STYLE = re.compile(r"<style scoped>.*?</style>\s*", re.DOTALL)


def notebook_page(text, stem):
    """The page, and its pictures.

    Arguments
    ---------
    text : str
        Of the notebook's file.
    stem : str
        What pictures' names begin with.

    Returns
    -------
    page : str
        Markdown.
    pictures : dict
        Name to PNG.
    """
    parts, pictures = [], {}
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = {name: "".join(d) for name, d in _data(output).items()}
            if "image/png" in data:
                name = f"{stem}_{len(pictures)}.png"
                pictures[name] = base64.b64decode(data["image/png"])
                parts.append(f"![what this cell draws]({name})")
            elif "text/html" in data:
                parts.append(STYLE.sub("", data["text/html"]))
            else:
                parts.append(f"```text\n{data['text/plain'].rstrip()}\n```")
    return "\n\n".join(parts) + "\n", pictures


def _data(output):
    """An output by its kinds; what was printed is plain text."""
    return output.get("data") or {"text/plain": output["text"]}
