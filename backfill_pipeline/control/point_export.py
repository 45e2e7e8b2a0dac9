"""`backfill points --export`: a site's points as a Brick model or a Project Haystack grid.

Put here: which points are exported, where the text goes, and the summary of it. Keep out: the forms themselves
(`dataset/brick.py`, `dataset/haystack.py`).
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from backfill_pipeline.core.object_keys import ROOT, file_name
from backfill_pipeline.core.point_catalogue import PointSpan, at_instant
from backfill_pipeline.dataset.point_catalogue import read_catalogue
from backfill_pipeline.dataset.point_kinds import UNKNOWN_KIND, kind_of
from backfill_pipeline.dataset.units import has_no_unit, unit_of
from backfill_pipeline.errors import SettingError, UsageError
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.days import settings_store
from backfill_pipeline.storage.store import Store


@dataclass(frozen=True, slots=True)
class PointExport:
    """An export and its figures.

    Attributes:
        site: the site.
        form: `brick` or `haystack`.
        text: the model or grid.
        points: points in it.
        stated: points whose kind their tags state.
        guessed: points whose kind is a guess.
        unknown: points whose kind is not known.
        unknown_units: points with a unit that is in no table; it is exported as text.
    """

    site: str
    form: str
    text: str
    points: int
    stated: int
    guessed: int
    unknown: int
    unknown_units: int

    def facts(self) -> dict[str, Any]:
        """The figures, for scripts."""
        return {key: value for key, value in asdict(self).items() if key != "text"}

    def summary(self) -> str:
        """The figures in one line."""
        return (
            f"{self.points:,} points of site {self.site}. Kinds: {self.stated:,} from tags, {self.guessed:,} guessed, "
            f"{self.unknown:,} unknown. Units not in the table: {self.unknown_units:,}."
        )


def exported_points(settings: Settings, site: str, form: str) -> PointExport:
    """Export every point in a site's catalogue, with those that are no longer listed.

    Raises:
        UsageError: the site has no catalogue.
        SettingError: a library of the extra `standards` is not installed.
        DamagedObjectError, StoreRefusedError, StoreBusyError: the catalogue cannot be read.
    """
    store = settings_store(settings)
    spans = at_instant(read_catalogue(store, site), None)
    if not spans:
        raise UsageError(
            f"site {site} has no catalogue of points in {store.url('')}",
            about="site",
            hint="the next run of the site that stores a day writes it",
        )
    text = _text(form, site, spans, stored_at(store, site))
    kinds = [kind_of(span) for span in spans]
    guessed = sum(kind.guessed_from is not None for kind in kinds)
    unknown = sum(kind == UNKNOWN_KIND for kind in kinds)
    units = sum(unit_of(span.unit) is None and not has_no_unit(span.unit) for span in spans)
    return PointExport(site, form, text, len(spans), len(spans) - guessed - unknown, guessed, unknown, units)


def _text(form: str, site: str, spans: Sequence[PointSpan], place: str) -> str:
    try:
        if form == "brick":
            from backfill_pipeline.dataset.brick import brick_model  # noqa: PLC0415 - rdflib is of an extra

            return brick_model(site, spans, place)
        from backfill_pipeline.dataset.haystack import haystack_grid  # noqa: PLC0415 - phable is of an extra

        return haystack_grid(site, spans, place)
    except ModuleNotFoundError as error:
        raise SettingError(
            f"--export {form} needs the package {error.name}, which is not installed",
            hint="run: python -m pip install 'backfill-pipeline[standards]'",
        ) from error


def stored_at(store: Store, site: str) -> str:
    """Where a site's objects are, as a pattern that DuckDB and polars read."""
    return re.sub(r"\[", "[[]", store.url(f"{ROOT}/*/*/*/{file_name(site)}"))


def write_export(export: PointExport, path: Path) -> None:
    """Write an export to a file, whole or not at all.

    Raises:
        UsageError: the file cannot be written.
    """
    draft = path.parent / f".{path.name}.{uuid4().hex[:8]}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(export.text, encoding="utf-8", newline="\n")
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise UsageError(
            f"--out {path} cannot be written: {error.strerror}", hint="name a file that you may write"
        ) from error
