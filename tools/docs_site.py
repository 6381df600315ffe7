"""Pages of the site that lie elsewhere in the project, and links to them.

A page that is read in the checkout links to its neighbours there; on the site
the same links lead to the same texts.
"""

import re
import sys
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from notebook_page import notebook_page  # noqa: E402

# Page of the site: where its text lies
ELSEWHERE = {
    "index.md": "README.md",
    "manifests.md": "manifests/README.md",
    "tour.md": "docs/tour.ipynb",
    "weights_licence.md": "speechbrain_mser/models/open/LICENSE",
    "seamless_expressive.md": "recipes/M5SER/seamless_expressive/README.md",
}
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)(#[^)]*)?\)")


def on_files(files, config):
    """Add the pages that lie elsewhere."""
    for page, path in ELSEWHERE.items():
        text = (ROOT / path).read_text(encoding="utf-8")
        if path.endswith(".ipynb"):
            text, pictures = notebook_page(text, Path(page).stem)
            for name, png in pictures.items():
                files.append(File.generated(config, name, content=png))
        elif not path.endswith(".md"):
            text = f"# {path}\n\n```text\n{text}\n```\n"
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown, page, config, files):
    """Lead every link to the page that shows the file it names."""
    del config, files
    name = page.file.src_uri
    source = ROOT / ELSEWHERE.get(name, f"docs/{name}")
    pages = {(ROOT / path).resolve(): uri for uri, path in ELSEWHERE.items()}

    def lead(link):
        target = (source.parent / link[1]).resolve()
        if target in pages:
            uri = pages[target]
        elif target.is_relative_to(ROOT / "docs"):
            uri = target.relative_to(ROOT / "docs").as_posix()
        else:
            raise ValueError(f"{source}: {link[1]} is not on the site")
        up = "../" * name.count("/")
        return f"]({up}{uri}{link[2] or ''})"

    return LINK.sub(lead, markdown)
