"""What hundreds of tests would make anew and is the same each time, made once: compiled releases, and the tables of routes."""

from contextvars import ContextVar

from interlock.app import releases, shelf
from interlock.release.load import from_files
from interlock.server import router
from interlock.server.api.application import make_api
from interlock.server.login import consent, device, outside
from interlock.server.login.browser import KeptLogins
from interlock.server.page.application import make_page

_compiled = {}
_apps = {}
_behind = ContextVar("behind")


def make_once():
    """From now on, for the gateways that tests run in this process. Those in processes of their own make it all themselves."""
    releases.from_files = shelf.from_files = _from_files
    router.make_api = _lent_api
    router.make_page = _lent_page


def _from_files(files, variables=None):
    """A frozen value by the texts it is made of. A release with problems is read again each time."""
    key = (tuple(files.items()), None if variables is None else tuple(variables.items()))
    if key not in _compiled:
        _compiled[key] = from_files(files, variables)
    return _compiled[key]


class _Behind:
    """Stands for the plane or the gate of whichever gateway the request under way has come to.

    Nothing of either is looked at while routes are made; if that changes, asking here fails for want of a request.
    """

    def __init__(self, which):
        self._which = which

    def __getattr__(self, name):
        return getattr(_behind.get()[self._which], name)


class _Lent:
    """An application that many gateways share, as one of them sees it."""

    def __init__(self, app, plane, gate):
        self._app, self._behind = app, {"plane": plane, "gate": gate}

    async def __call__(self, scope, receive, send):
        _behind.set(self._behind)
        await self._app(scope, receive, send)


def _lent_api(plane, gate):
    if "api" not in _apps:
        _apps["api"] = make_api(_Behind("plane"), _Behind("gate"))
    return _Lent(_apps["api"], plane, gate)


def _lent_page(plane, *, ways, browser, more):
    if ways:
        return make_page(plane, ways=ways, browser=browser, more=more)
    if "page" not in _apps:
        same = _Behind("plane")
        rooms = [*consent.routes(same), *device.routes(same), *outside.routes(same)]
        _apps["page"] = make_page(same, browser=KeptLogins(same), more=rooms)
    return _Lent(_apps["page"], plane, None)
