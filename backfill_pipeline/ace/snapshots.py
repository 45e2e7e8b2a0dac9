"""What the API says today of sites, weather, DER events and gateways.

Put here: which requests a kind of snapshot needs. Keep out: what is stored of the answers (`core/snapshots.py`), and
how a request is sent and retried (`ace/client.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

from backfill_pipeline.ace.client import AceClient
from backfill_pipeline.core.snapshots import Kind
from backfill_pipeline.errors import BackfillError, RequestRefusedError, SiteRefusedError

Items = list[dict[str, Any]]
T = TypeVar("T")

_NOT_FOUND = 404


class SnapshotSource:
    """The answers of one run; lists that several kinds need are requested once.

    Args:
        client: the ACE API.
        sites: site names; other sites of the key are left out.
    """

    def __init__(self, client: AceClient, sites: Sequence[str]) -> None:
        self._client = client
        self._sites = tuple(sites)
        self._lists: dict[str, Items | BackfillError] = {}

    def subjects(self, kind: Kind) -> tuple[str, ...]:
        """The sites, or for DER events the clients of these sites, sorted.

        Raises:
            BackfillError: the sites of the key cannot be listed.
        """
        if kind.subject == "site":
            return tuple(sorted(self._sites))
        clients = {site.get("client") for name, site in self._listed_sites.items() if name in self._sites}
        return tuple(sorted(client for client in clients if isinstance(client, str) and client))

    def items(self, kind: Kind, subject: str) -> Items | None:
        """What the API says of a subject; None when this kind does not exist for the subject and the key (403, 404).

        Raises:
            BackfillError: the API did not answer, or refused the key.
        """
        requests: dict[str, Callable[[str], Items | None]] = {
            "sites": self._site,
            "weather": self._weather,
            "der_events": self._der_events,
            "gateways": self._gateways,
            "agent_configs": self._agent_configs,
            "hawke_configuration": self._hawke_configuration,
        }
        return requests[kind.name](subject)

    def _site(self, site: str) -> Items | None:
        found = self._listed_sites.get(site)
        return None if found is None else [found]

    def _weather(self, site: str) -> Items | None:
        path, what = f"/sites/{quote(site, safe='')}/weather", f"the weather of site {site!r}"
        answer = _if_there(lambda: self._client.document(path, what))
        weather = None if answer is None else answer.get("weather")
        if answer is None or not isinstance(weather, dict):
            return None if answer is None else []
        return [
            {"quantity": quantity, **sample}
            for quantity, sample in weather.items()
            if isinstance(sample, dict) and sample.get("value") is not None
        ]

    def _der_events(self, client: str) -> Items | None:
        path, what = f"/clients/{quote(client, safe='')}/der_events", f"the DER events of client {client!r}"
        current = _if_there(lambda: self._client.records(path, what))
        if current is None:
            return None
        return current + self._client.records(path, what, {"get_past_events": "true"})

    def _gateways(self, site: str) -> Items | None:
        if self._listed_gateways is None:
            return None
        return [gateway for gateway in self._listed_gateways if gateway.get("site") == site]

    def _agent_configs(self, site: str) -> Items | None:
        return self._of_gateways(site, "agent_configs")

    def _hawke_configuration(self, site: str) -> Items | None:
        return self._of_gateways(site, "hawke_configuration")

    def _of_gateways(self, site: str, part: str) -> Items | None:
        """The items of all gateways of a site; None when no gateway of the site has this list."""
        gateways = self._gateways(site)
        if gateways is None:
            return None
        names = sorted({str(gateway["name"]) for gateway in gateways if gateway.get("name")})
        found = [self._of_gateway(name, part) for name in names]
        if found and all(items is None for items in found):
            return None
        return [{**item, "gateway": name} for name, items in zip(names, found, strict=True) for item in items or ()]

    def _of_gateway(self, name: str, part: str) -> Items | None:
        path, what = f"/gateways/{quote(name, safe='')}/{part}", f"{part} of gateway {name!r}"
        return _if_there(lambda: self._client.records(path, what))

    @property
    def _listed_sites(self) -> dict[str, dict[str, Any]]:
        listed = self._once("/sites/", "the sites of the key", {"show_archived": "true"})
        return {str(site.get("name")): site for site in listed}

    @property
    def _listed_gateways(self) -> Items | None:
        return _if_there(lambda: self._once("/gateways/", "the gateways of the key"))

    def _once(self, path: str, what: str, query: Mapping[str, str] | None = None) -> Items:
        """Request a list for all kinds and sites of the run; a failure is not requested again either."""
        if path not in self._lists:
            try:
                self._lists[path] = self._client.records(path, what, query)
            except BackfillError as error:
                self._lists[path] = error
        found = self._lists[path]
        if isinstance(found, BackfillError):
            raise found
        return found


def _if_there(request: Callable[[], T]) -> T | None:
    """The answer to a request; None when the API answers 403 or 404."""
    try:
        return request()
    except SiteRefusedError:
        return None
    except RequestRefusedError as error:
        if error.status != _NOT_FOUND:
            raise
        return None
