"""The Python code in README and docs has no type errors.

A block whose first line is ``# shop/tasks.py`` is that module, for the other blocks of its page, too. The line
``<!-- types: from stand_ins import app -->`` above a block is code that comes before it. A line that ends in
``# error: …`` has that error, in the words of mypy.
"""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.type_checks.site import ROOT, Problems, Site

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"(?:^ *<!-- types: (?P<before>[^\n]*) -->\n+)?^(?P<indent> *)```python\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
SHOWN = re.compile(r"  # error: (?P<text>.*)$", re.MULTILINE)
PATH = re.compile(r"# (?P<path>[\w/]+\.py)\b")
OPTIONS = (
    "--ignore-missing-imports", "--allow-untyped-defs", "--allow-incomplete-defs", "--allow-untyped-calls",
    "--allow-untyped-decorators", "--allow-subclassing-any", "--no-warn-return-any", "--allow-any-generics",
    "--disable-error-code", "empty-body", "--disable-error-code", "var-annotated",
)  # fmt: skip
"""Examples may leave out annotations, and use packages without types."""


class Block(NamedTuple):
    page: str
    line: int
    """Line of its first line of code."""
    code: str
    before: str
    path: str | None


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for found in BLOCK.finditer(text):
        code = textwrap.dedent(found["code"])
        path = PATH.match(code)
        line = text.count("\n", 0, found.start("code")) + 1
        yield Block(str(page.relative_to(ROOT)), line, code, found["before"] or "", path and path["path"])


def module(block: Block) -> str:
    """Return the block as a module whose lines have their numbers in the page."""
    code = block.code
    try:
        compile(code, block.page, "exec")
    except SyntaxError:  # ``await`` outside a function
        code = "async def block() -> None:\n" + textwrap.indent(code, " ")
        return f"{block.before}\n" + "\n" * (block.line - 3) + code
    future = "from __future__ import annotations\n"
    code = code.replace(future, "\n")
    return f"{block.before}\n" + "\n" * (block.line - 2) + code


def written(directory: Path) -> dict[Path, dict[str, Block]]:
    """Write all blocks as modules of a few projects: pages that have a module of one name are in different ones."""
    projects: list[dict[str, Block]] = []
    for page in PAGES:
        stem = re.sub(r"\W", "_", str(page.relative_to(ROOT).with_suffix("")).lower())
        modules = {block.path or f"{stem}_{block.line}.py": block for block in blocks(page)}
        fitting = (project for project in projects if not any(excludes(a, b) for a in project for b in modules))
        if modules:
            project = next(fitting, None)
            if project is None:
                projects.append(modules)
            else:
                project.update(modules)
    folders = {directory / str(number): modules for number, modules in enumerate(projects)}
    for folder, modules in folders.items():
        for name, block in modules.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(module(block))
            (file.parent / "__init__.py").touch()
        shutil.copy(Path(__file__).with_name("stand_ins.py"), folder)
        (folder / "__init__.py").unlink(missing_ok=True)
    return folders


def excludes(one: str, other: str) -> bool:
    """Return whether two modules cannot be in one project: the same one, or a module and a package of one name."""
    parts = [Path(path).with_suffix("").parts for path in (one, other)]
    shorter, longer = sorted(parts, key=len)
    return longer[: len(shorter)] == shorter


def in_pages(problems: Problems, modules: dict[str, Block]) -> list[str]:
    return [
        f"{modules[name].page if name in modules else name}:{line}: {text}"
        for (name, line), texts in sorted(problems.items())
        for text in texts
    ]


def shown_errors(modules: dict[str, Block]) -> dict[tuple[str, int], str]:
    """Return the errors that pages show, by module and line."""
    return {
        (name, block.line + block.code.count("\n", 0, found.start())): found["text"]
        for name, block in modules.items()
        for found in SHOWN.finditer(block.code)
    }


@pytest.mark.parametrize("tool", ["mypy", "pyright"])
def test_code_in_pages_has_no_type_errors(tmp_path: Path, site_named: Callable[[str], Site], tool: str) -> None:
    site = site_named("with celery-types")
    lines: list[str] = []
    for project, modules in written(tmp_path).items():
        problems = site.mypy(project, *OPTIONS) if tool == "mypy" else site.pyright(project)
        for where, text in shown_errors(modules).items():
            reported = problems.pop(where, [])
            if not reported or (tool == "mypy" and text not in reported[0]):
                lines.append(f"{modules[where[0]].page}:{where[1]}: not {text}, but {reported}")
        lines += in_pages(problems, modules)
    if lines:
        pytest.fail("\n".join(lines), pytrace=False)


def test_errors_in_a_page_are_found(tmp_path: Path, site_named: Callable[[str], Site]) -> None:
    page = "# Page\n\n<!-- types: from stand_ins import app -->\n\n  ```python\n  app.task(3)\n  await x\n  ```\n"
    (tmp_path / "page.md").write_text(page)
    block = Block("page.md", 6, "app.task(3)\nawait x\n", "from stand_ins import app", None)
    found = BLOCK.search(page)
    assert found
    assert (found["before"], textwrap.dedent(found["code"])) == (block.before, block.code)
    shutil.copy(Path(__file__).with_name("stand_ins.py"), tmp_path)
    (tmp_path / "block.py").write_text(module(block))

    problems = site_named("with celery-types").mypy(tmp_path, *OPTIONS)

    assert {line.partition(" ")[0] for line in in_pages(problems, {"block.py": block})} == {"page.md:6:", "page.md:7:"}
