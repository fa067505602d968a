"""Hooks of mkdocs: the README as home page, and links that hold on site and repository.

The site is `docs`, with the README as its home page. What else of the repository a page
links to (the change log, an experiment file) comes along under the path that it has
there. So each page stands once, and its links are written for the repository alone.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
HOME = {"README.md": "index.md"}
LINK = re.compile(r"(?<=\]\()[^)#:\s]+")  # the path in `](path#heading)`
SESSION = re.compile(r"^```python\n(?=>>>)", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages beside `docs`, and the files outside of it that pages link to."""
    pages = [_in_repository(file.src_uri) for file in files.documentation_pages()]
    waiting = [*PAGES, *pages]
    seen: set[str] = set()
    while waiting:
        path = waiting.pop()
        if path in seen:  # pages link to each other
            continue
        seen.add(path)
        uri = _in_site(path)
        if not path.startswith("docs/") and uri not in files.src_uris:
            files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
        if path.endswith(".md"):
            waiting += _linked(path, (ROOT / path).read_text())
    return files


def on_page_markdown(
    markdown: str, page: Page, config: MkDocsConfig, files: Files
) -> str:
    """Turn links of the repository into links of the site, and `>>>` into sessions."""
    path = _in_repository(page.file.src_uri)

    def link(match: re.Match[str]) -> str:
        target = _target(path, match[0])
        if not (ROOT / target).exists():  # left, so that mkdocs complains
            return match[0]
        return posixpath.relpath(
            _in_site(target), posixpath.dirname(page.file.src_uri) or "."
        )

    return SESSION.sub("```pycon\n", LINK.sub(link, markdown))


def _linked(path: str, markdown: str) -> list[str]:
    """Return the files of the repository that a page links to."""
    targets = [_target(path, link) for link in LINK.findall(markdown)]
    return [target for target in targets if (ROOT / target).is_file()]


def _target(path: str, link: str) -> str:
    """Return the path in the repository of what a page links to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), link))


def _in_site(path: str) -> str:
    """Return where a file of the repository is in the site."""
    return HOME.get(path, path.removeprefix("docs/"))


def _in_repository(uri: str) -> str:
    """Return where a page of the site is in the repository."""
    for path, home in HOME.items():
        if uri == home:
            return path
    return f"docs/{uri}" if (ROOT / "docs" / uri).is_file() else uri
