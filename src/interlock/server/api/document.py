"""The OpenAPI 3.1 document: what Litestar knows of the routes, and what it does not: who may come in, bodies, problems."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from litestar import Litestar
from litestar.config.app import AppConfig
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme
from litestar.routes import HTTPRoute

from interlock import __version__
from interlock.server.api.common import PROBLEM, Problem
from interlock.server.api.who import NOBODY, PERSON, body_of, gives_of, is_once, media_of, refuses_of, tells_of, who_of
from interlock.server.application import Application

_SCHEMES: Final = {
    "person": "A person's own token: of the identity provider, or of the development issuer.",
    "session": "A session token: an agent acting for a user on a task, by token exchange at /oauth/token.",
    "agent": "An agent's own token, with no user: an enforcement point that asks for decisions.",
}
_REF: Final = "#/components/schemas/{name}"
_TELLS: Final = {
    400: "The request does not fit, and why.",
    401: "No token, or not one for this.",
    403: "Not for this caller; that it was tried is on record.",
    404: "There is none, as far as this caller may know.",
    202: "It waits for people; see `interlock/decision`.",
    409: "Not as things stand, or an Idempotency-Key that is taken.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    422: "It can be read, and is nothing that can be done; the answer says why.",
    423: "A person has stopped execution here.",
    429: "Too often in a short time; `retry-after` says when.",
    500: "A defect; the server's log says more.",
    503: "The control plane cannot answer right now, or too many ask at once.",
    504: "It was begun and what became of it is not known; see `interlock/decision`.",
}
_OAUTH_ERROR: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string"}, "error_description": {"type": "string"}},
}
_KEY: Final[dict[str, Any]] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key and body within a day give the first answer; the same key and another body are refused.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}
_WORDS: Final = re.compile(r"(?<!^)(?=[A-Z])")


def made_for_documents(handlers: list[HTTPRouteHandler]) -> Litestar:
    """An application that answers nobody: Litestar's own description of these routes, and no routes for documents."""

    def first(config: AppConfig) -> AppConfig:
        config.debug = False
        return config

    schemes = {
        name: SecurityScheme(type="http", scheme="bearer", bearer_format="JWT", description=words)
        for name, words in _SCHEMES.items()
    }
    config = OpenAPIConfig(
        title="Interlock",
        version=__version__,
        description="The control plane that production AI agents run behind. Every operation passes one gate and is on record.",
        components=Components(security_schemes=schemes),  # type: ignore[arg-type]  # Mapping is invariant in its values
        operation_id_creator=lambda handler, _, __: _operation_id(handler),
    )
    return Application(route_handlers=handlers, openapi_config=config, on_app_init=[first], logging_config=None)


def document(handlers: list[HTTPRouteHandler]) -> dict[str, Any]:
    """The document, as JSON values."""
    app = made_for_documents(handlers)
    found: dict[str, Any] = app.openapi_schema.to_schema()
    schemas = found["components"].setdefault("schemas", {})
    bodies = [kind for _, _, handler in documented(app) if (kind := body_of(handler.opt)) is not None]
    # Two shapes of one name get longer names, so each body is found by its own reference.
    made, components = msgspec.json.schema_components([Problem, *bodies], ref_template=_REF)
    for name, schema in components.items():
        schemas.setdefault(name, schema)
    references = dict(zip([Problem, *bodies], made, strict=True))
    for path, method, handler in documented(app):
        _complete(found["paths"][path][method.lower()], path, method, handler, references)
    return found


def documented(app: Litestar) -> Iterator[tuple[str, str, HTTPRouteHandler]]:
    """Every operation of an application: path as documents write it, method, handler. `OPTIONS` answers by itself."""
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            for method, (handler, _) in route.route_handler_map.items():
                if method != "OPTIONS" and handler.fn.__module__.startswith(__package__ or ""):
                    yield route.path_format, str(method), handler


def _complete(operation: dict[str, Any], path: str, method: str, handler: HTTPRouteHandler, references: Any) -> None:
    who, body = who_of(handler.opt), body_of(handler.opt)
    operation["security"] = [{kind: []} for kind in who]
    operation["tags"] = [_resource(handler)]
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {media_of(handler.opt): {"schema": references[body]}}}
    if gives_of(handler.opt):
        text = {"schema": {"type": "string"}}
        operation["responses"]["200"]["content"] = dict.fromkeys(gives_of(handler.opt), text)
    tells = {400, 500, 503} if who != NOBODY else {500}
    tells |= {401, 403} if who else set()
    tells |= {404} if "{" in path else set()
    if method == "POST":
        tells |= {400, 409, 413, 415} if who else {400, 413}
        if PERSON[0] in who and is_once(handler.opt):
            operation.setdefault("parameters", []).append(_KEY)
    tells |= set(tells_of(handler.opt))
    problem = {"schema": {"$ref": _REF.format(name=Problem.__name__)}}
    waits, bad = 202, 400
    for status in sorted(tells):
        content: dict[str, Any] = {"application/json" if status == waits else PROBLEM: problem}
        if status == bad and refuses_of(handler.opt):
            content[refuses_of(handler.opt)] = {"schema": _OAUTH_ERROR}
        operation["responses"][str(status)] = {"description": _TELLS[status], "content": content}


def _resource(handler: HTTPRouteHandler) -> str:
    return handler.fn.__module__.rpartition(".")[2]


def _operation_id(handler: HTTPRouteHandler) -> str:
    return f"{_resource(handler)}.{_WORDS.sub('_', handler.handler_name).lower()}"
