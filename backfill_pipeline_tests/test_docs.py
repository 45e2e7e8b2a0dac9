"""The docs name what there is: every setting, every section of `dagster.yaml`, no command that does not exist."""

import re

import pytest
import yaml

from backfill_pipeline import __version__
from backfill_pipeline.control.cli import backfill
from backfill_pipeline.settings import Settings
from backfill_pipeline.settings_page import settings_page
from backfill_pipeline_tests.test_architecture import ROOT

TOP = ROOT.parent
GUARDS = (TOP / "docs" / "guards.md").read_text(encoding="utf-8")
PAGES = sorted(
    {*(TOP / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")), *(TOP / "docs").rglob("*.md")}
)


def test_the_page_of_settings_is_made_from_the_settings():
    """`docs/settings.md` is what its command prints, and has each variable once."""
    page = (TOP / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == settings_page()
    named = re.findall(r"^\| `([A-Z_0-9]+)` \|", page, re.MULTILINE)
    assert sorted(named) == sorted(field.alias for field in Settings.model_fields.values())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(TOP).as_posix())
def test_every_link_leads_to_a_file_and_a_heading(page):
    """A relative link names a file that is there; its anchor names a heading of that file."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("https://", "http://")):
            continue
        place, _, anchor = target.partition("#")
        path = (page.parent / place).resolve() if place else page
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}, target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(TOP).as_posix())
def test_every_mention_of_a_page_is_a_link(page):
    """A page of the docs is named as a link, outside of code."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert re.findall(r"`docs/[\w./-]+\.md`", text) == []


def test_the_map_has_every_page():
    """`docs/README.md` links to each page beside it."""
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", (TOP / "docs" / "README.md").read_text(encoding="utf-8")))
    assert linked == {path.name for path in (TOP / "docs").glob("*.md")} - {"README.md"}


def test_every_section_of_the_instance_is_explained():
    """`docs/dagster.md` says what each part of `dagster.yaml` is for."""
    told = (TOP / "docs" / "dagster.md").read_text(encoding="utf-8")
    for section in yaml.safe_load((TOP / "dagster.yaml").read_text(encoding="utf-8")):
        assert f"`{section}" in told


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(TOP).as_posix())
def test_no_page_names_a_command_that_is_not_there(page):
    """Each `backfill ...` that a page tells to type is a command."""
    named = set(re.findall(r"(?:^|`|&& +)backfill ([a-z-]+)\b", page.read_text(encoding="utf-8"), re.MULTILINE))
    assert named <= set(backfill.commands)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(TOP).as_posix())
def test_every_path_that_a_page_names_is_there(page):
    """`docs/...` and the project's own files exist."""
    named = re.findall(
        r"`((?:docs|backfill_pipeline|backfill_pipeline_tests|benchmarks)/[\w./-]*)`", page.read_text("utf-8")
    )
    assert [path for path in named if not (TOP / path).exists()] == []


def test_every_guard_has_a_test_that_exists():
    """Each test that `docs/guards.md` names is there, and each of its lines names one."""
    tests = {
        name
        for path in ROOT.with_name("backfill_pipeline_tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    lines = [line for line in GUARDS.splitlines() if line.startswith("| ") and not line.startswith(("| what", "| #"))]
    named = [re.findall(r"`(test_\w+)`", line) for line in lines]
    assert all(named)
    assert {name for names in named for name in names} <= tests
    numbered = [int(number) for number in re.findall(r"^\| (\d+) \|", GUARDS, re.MULTILINE)]
    assert numbered == list(range(1, 28))


def test_each_line_of_the_changelog_is_one_sentence():
    """A version has a date; each change is a sentence that ends with a full stop."""
    text = (TOP / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert versions[0] == "Unreleased"
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", one) for one in versions[1:])
    assert __version__ in {one.split(" - ")[0] for one in versions[1:]}
    changes = [" ".join(one.split()) for one in re.findall(r"^- (.+(?:\n  .+)*)", text, re.MULTILINE)]
    wrong = [one for one in changes if not one.endswith(".") or re.search(r"\. [A-Z`]", one)]
    assert wrong == []
