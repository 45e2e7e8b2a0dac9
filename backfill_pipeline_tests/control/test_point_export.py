"""Rules of `backfill points --export`: a file or standard output, figures, and one line where something is missing."""

import json
import sys

import pytest
from phable import ph_from_json
from rdflib import Graph

from backfill_pipeline.control.cli import main
from backfill_pipeline.dataset.point_catalogue import update_catalogue
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.days import settings_store
from backfill_pipeline_tests.dataset.catalogue import AT, spans
from backfill_pipeline_tests.test_docs import TOP

FIGURES = "11 points of site north. Kinds: 1 from tags, 9 guessed, 1 unknown. Units not in the table: 1."


@pytest.fixture
def command(tmp_path, monkeypatch, capfd):
    """Runs `backfill points` in a folder whose store has the catalogue of `north`: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BACKFILL_STORE", str(tmp_path / "data"))
    update_catalogue(settings_store(Settings.load()), "north", spans(), AT)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["backfill", "points", *words])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
        return code, *capfd.readouterr()

    return run


def test_a_model_is_written_to_a_file(command, tmp_path):
    """`--out` writes the model, whole or not at all, and the figures are one line or facts."""
    path = tmp_path / "made" / "north.ttl"
    assert command("--site", "north", "--export", "brick", "--out", str(path)) == (0, f"{path}: {FIGURES}\n", "")
    assert len(Graph().parse(path)) > 100
    assert [one.name for one in path.parent.iterdir()] == ["north.ttl"]
    code, output, _ = command("--site", "north", "--export", "haystack", "--out", str(path), "--json")
    assert code == 0
    assert json.loads(output) == {
        "site": "north",
        "form": "haystack",
        "points": 11,
        "stated": 1,
        "guessed": 9,
        "unknown": 1,
        "unknown_units": 1,
        "out": str(path),
    }
    assert len(ph_from_json(path.read_text(encoding="utf-8")).rows) > 11


def test_the_docs_show_what_the_command_prints():
    """The example in `docs/standards.md` is the output for the catalogue of these tests."""
    assert f"my_site.ttl: {FIGURES.replace('north', 'my_site')}\n" in (TOP / "docs" / "standards.md").read_text("utf-8")


def test_without_a_file_standard_output_is_the_export_alone(command):
    """What is on standard output can be piped to a parser; the figures are on standard error."""
    code, output, errors = command("--site", "north", "--export", "brick")
    assert (code, errors) == (0, f"{FIGURES}\n")
    assert len(Graph().parse(data=output, format="turtle")) > 100
    _, output, _ = command("--site", "north", "--export", "haystack")
    assert ph_from_json(output).rows[0]["dis"] == "north"


@pytest.mark.parametrize(("form", "package"), [("brick", "rdflib"), ("haystack", "phable")])
def test_without_the_extra_one_line_names_it(command, monkeypatch, form, package):
    """A library that is not installed ends the command with exit code 2 and the command that installs it."""
    monkeypatch.delitem(sys.modules, f"backfill_pipeline.dataset.{form}", raising=False)
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.setitem(sys.modules, name, None)
    code, output, errors = command("--site", "north", "--export", form)
    assert (code, output) == (2, "")
    assert errors.count("\n") == 1
    assert "not installed" in errors
    assert "backfill-pipeline[standards]" in errors


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--site", "south", "--export", "brick"], "south has no catalogue of points"),
        (["--site", "north", "--export", "brick", "--out", "."], "--out"),
        (["--site", "north", "--export", "brick", "--list", "zone"], "--list"),
        (["--site", "north", "--export", "brick", "--json"], "--out"),
        (["--site", "north", "--list", "", "--out", "x"], "--export"),
        (["--site", "north", "--export", "csv"], "csv"),
    ],
)
def test_what_cannot_be_exported_is_one_line(command, words, named):
    """A site without a catalogue, a file that cannot be written and options that exclude each other: exit code 2."""
    code, output, errors = command(*words)
    assert (code, output) == (2, "")
    assert errors.count("\n") == 1
    assert named in errors
