"""Links between the documents lead somewhere, and the README leads to each page of docs/."""

import re
from pathlib import Path

import pytest

from tests.common import ROOT

PLACES = (".", "docs", "examples", "evaluation", "sharding", "benchmarks/results")
DOCUMENTS = sorted(path for place in PLACES for path in (ROOT / place).glob("*.md"))


def prose(document: Path) -> str:
    return re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(document: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(document: Path) -> list[tuple[Path, str]]:
    """The files that ``document`` links to, and the anchors in them, empty for none."""
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(document))
    local = [target.partition("#") for target in targets if "://" not in target]
    return [
        ((document.parent / path).resolve() if path else document, anchor)
        for path, _, anchor in local
    ]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_exist(document):
    for path, anchor in links(document):
        assert path.exists(), path
        assert not anchor or anchor in anchors(path), f"{path}#{anchor}"


def test_the_readme_leads_to_each_page():
    linked = {path for path, _ in links(ROOT / "README.md")}
    assert set((ROOT / "docs").glob("*.md")) <= linked
