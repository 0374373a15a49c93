"""How agents that come with an issuer's own token get in: where to log in, and the session that the token stands for."""

from __future__ import annotations

from typing import Final

import msgspec

from interlock.app.administration import AdminGate
from interlock.app.outside_logins import LoginOffer
from interlock.app.shelf import StoredReleases
from interlock.core.who import Session
from interlock.identity.delegated import DelegatedSessions
from interlock.identity.errors import ExchangeRefusedError, TokenRefusedError
from interlock.identity.exchange import SESSION_ISSUER
from interlock.identity.outside import claimed_issuer
from interlock.identity.refusals import RefusalCounter
from interlock.release.model import Release

MCP_PATH: Final = "/mcp"
METADATA_PATH: Final = "/.well-known/oauth-protected-resource"


class ResourceMetadata(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a client needs to know to get a token for us (RFC 9728)."""

    resource: str
    authorization_servers: tuple[str, ...]
    bearer_methods_supported: tuple[str, ...]
    resource_name: str
    scopes_supported: tuple[str, ...] = ()
    interlock_logins: tuple[LoginOffer, ...] = ()
    """Where programs of people log them in: of our own making, and for our own command line."""


class Doors:
    """Delegated tokens at the MCP endpoint, and the metadata that leads clients to them."""

    def __init__(
        self,
        *,
        shelf: StoredReleases,
        admin: AdminGate,
        delegated: DelegatedSessions,
        refusals: RefusalCounter,
        environment: str,
        public_url: str,
    ) -> None:
        self._shelf = shelf
        self._admin = admin
        self._delegated = delegated
        self._refusals = refusals
        self._environment = environment
        self.public_url = public_url.rstrip("/")
        self.logs_in_here = False
        """Whether the built-in issuer logs clients in, so that clients are sent to us first."""

    def concerns(self, token: str) -> bool:
        """Whether a token says that somebody else than our own exchange issued it."""
        return claimed_issuer(token) not in ("", SESSION_ISSUER)

    async def session(self, token: str, task: str) -> Session:
        """The session that a delegated token stands for. Refusals are counted.

        Raises as `DelegatedSessions.session`, and `StoreError` or `ReleaseError` when no release can be had.
        """
        try:
            return await self._delegated.session(token, task, await self._release())
        except TokenRefusedError as error:
            self._refusals.add(error.code.value, error.issuer)
            raise
        except ExchangeRefusedError as error:
            self._refusals.add(error.counted_as or error.error)
            raise

    async def metadata(self, base: str, path: str) -> ResourceMetadata:
        """The metadata of the resource at `path`, for a client that reached us at `base`."""
        release = await self._release()
        found = [issuer for issuer in release.issuers.values() if issuer.advertise and self._environment in issuer.environments]
        logins = [issuer for issuer in found if issuer.agents is not None and issuer.agents.delegated]
        servers: list[str] = [base] if self.logs_in_here else []
        for issuer in logins:
            if issuer.kind == "entra":
                servers += [f"{issuer.issuer}/{directory}/v2.0" for directory in issuer.tenants]
            else:
                servers.append(issuer.issuer)
        scopes = dict.fromkeys(scope for issuer in logins for scope in issuer.scopes)
        return ResourceMetadata(
            resource=base + path,
            authorization_servers=tuple(servers),
            bearer_methods_supported=("header",),
            resource_name="Interlock",
            scopes_supported=tuple(scopes),
        )

    async def _release(self) -> Release:
        return self._shelf.latest or await self._admin.release()
