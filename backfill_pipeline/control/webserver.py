"""Dagster's webserver behind the check of Host and Origin: `python -m backfill_pipeline.control.webserver`.

It takes the options of `dagster-webserver`. In our image it replaces that command, so that containers and pods run it
as well.

Put here: how Dagster's application is wrapped. Keep out: which requests are refused by Host and Origin
(`host_check.py`).
"""

from collections.abc import Collection
from typing import Any

from dagster_webserver import cli
from starlette.datastructures import Headers
from starlette.responses import JSONResponse

from backfill_pipeline.control.host_check import OwnOriginOnly
from backfill_pipeline.settings import Settings


def main() -> None:
    """Run Dagster's own command, with its application wrapped."""
    allowed_hosts = Settings.load().allowed_hosts
    command: Any = cli  # its types do not contain the names that it imports
    build = command.create_app_from_workspace_process_context

    def wrapped(*arguments: Any, **options: Any) -> Any:
        return guarded(build(*arguments, **options), allowed_hosts)

    command.create_app_from_workspace_process_context = wrapped
    command.main()


def guarded(app: Any, allowed_hosts: Collection[str]) -> Any:
    """Wrap Dagster's application, so that no page of another origin can use it.

    Args:
        app: the ASGI application of Dagster's webserver.
        allowed_hosts: as `OwnOriginOnly` takes them.
    """
    return OwnOriginOnly(_BodiesOnly(app), allowed_hosts=allowed_hosts)


class _BodiesOnly:
    """Refuses a GraphQL query in the URL, which Dagster would execute even if it changes something.

    An image or a form of any page can send such a request, and an older browser does not mark it. Dagster's pages send
    JSON. With `Accept: text/html` Dagster executes nothing: it answers with its page for queries.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["path"].rstrip("/").endswith("/graphql") and _executes_url(scope):
            message = "a GraphQL query in the URL or in a form is not executed. Send it by POST, as application/json"
            await JSONResponse({"error": "forbidden", "message": message}, 403)(scope, receive, send)
            return

        async def unframed(message: Any) -> None:
            if message["type"] == "http.response.start":  # no page of another origin may show it in a frame
                message["headers"] = [*message.get("headers", ()), (b"x-frame-options", b"SAMEORIGIN")]
            await send(message)

        await self.app(scope, receive, unframed)


def _executes_url(scope: Any) -> bool:
    """Whether Dagster would take the query from the URL: it reads these headers in the same way."""
    headers = Headers(scope=scope)
    if scope["method"] == "POST":
        kind = headers.get("content-type", "")
        return "application/json" not in kind and "application/graphql" not in kind
    return "text/html" not in headers.get("accept", "")


if __name__ == "__main__":
    main()
