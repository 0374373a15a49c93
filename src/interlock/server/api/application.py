"""The API as one ASGI application: every resource's routes, limits and error handlers."""

from __future__ import annotations

from litestar import Litestar
from litestar.config.app import AppConfig
from litestar.openapi.config import OpenAPIConfig

from interlock import __version__
from interlock.app.plane import Plane
from interlock.server.api import approvals, controls, health, lineages, oauth, releases
from interlock.server.api.common import handlers
from interlock.server.limits import MAX_FORM_BYTES


def make_api(plane: Plane) -> Litestar:
    """The API as an ASGI application."""
    resources = (oauth, health, controls, lineages, approvals, releases)
    return Litestar(
        route_handlers=[handler for resource in resources for handler in resource.routes(plane)],
        request_max_body_size=MAX_FORM_BYTES,
        openapi_config=OpenAPIConfig(title="Interlock", version=__version__),
        exception_handlers=handlers(),
        on_app_init=[_quiet],
        logging_config=None,
    )


def _quiet(config: AppConfig) -> AppConfig:
    config.debug = False
    config.pdb_on_exception = False
    return config
