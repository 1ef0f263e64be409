"""What MkDocs needs to make a site of pages that are also read in the repository: `hooks` in mkdocs.yml.

Examples become pages of their own. Links to files that are not part of the site become the name of the file.
"""

import ast
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

DOCS = Path(__file__).parent
EXAMPLES = sorted([*DOCS.glob("examples/**/*.py"), *DOCS.glob("examples/**/*.ipynb")])
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each example, and one that lists them."""
    for path in [path for path in EXAMPLES if path.suffix == ".py"]:
        name = path.relative_to(DOCS).as_posix()
        content = f"# {path.name}\n\n```python\n{path.read_text()}```\n"
        files.append(File.generated(config, f"{name}.md", content=content))
    listed = "\n".join(map(_entry, EXAMPLES))
    files.append(
        File.generated(config, "examples/index.md", content=f"# Examples\n\nEach of them is tested.\n\n{listed}\n")
    )
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Lead links to examples to their pages, and leave no link to what the site does not have."""
    here = DOCS / Path(page.file.src_uri).parent

    def rewritten(link: re.Match[str]) -> str:
        text, target, anchor = link[1], link[2], link[3] or ""
        path = (here / target).resolve()
        if "://" in target or path.suffix in (".md", ".png", ".svg"):
            inside = "://" in target or path.is_relative_to(DOCS)
            return link[0] if inside else text
        if path in EXAMPLES and path.suffix == ".py":
            return f"[{text}]({target}.md{anchor})"
        if path.is_relative_to(DOCS / "examples"):
            depth = len(here.relative_to(DOCS).parts)
            return f"[{text}]({'../' * depth}examples/index.md)"
        return text

    fences = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else LINK.sub(rewritten, part) for part in fences)


def _entry(path: Path) -> str:
    name = path.relative_to(DOCS / "examples").as_posix()
    if path.suffix != ".py":
        return f"- `{name}`"
    about = (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()[0].removesuffix(".")
    return f"- [{name}]({name}.md): {about[:1].lower()}{about[1:]}"
