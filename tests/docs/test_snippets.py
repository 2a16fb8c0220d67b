"""Every Python block of the README and the guides runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path) -> list[str]:
    return BLOCK.findall(page.read_text("utf-8"))


def pages_with_code() -> list[Path]:
    return [page for page in PAGES if blocks(page)]


@pytest.mark.parametrize("page", pages_with_code(), ids=lambda page: page.name)
async def test_the_blocks_of_a_page_run_in_order(environment: None, page: Path, run) -> None:
    names: dict[str, object] = {}
    for number, block in enumerate(blocks(page), 1):
        await run(block, names, f"{page.name}, block {number}")


def test_there_are_blocks_to_run() -> None:
    assert ROOT / "README.md" in pages_with_code()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_rows_of_a_table_stand_under_its_head(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert re.search(r"\A.*\n\|[-|]+\n", table), table


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target
