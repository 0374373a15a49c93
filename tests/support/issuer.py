"""An issuer as a real server: discovery, keys that rotate, and a log-in by authorization code with PKCE.

The authorization endpoints for MCP clients are the SDK's own, those for people stand in `provider`; whoever comes is logged in
as `user`. What can go wrong on the network
is done by `trouble`.
"""

import asyncio
import contextlib
import time
from collections import Counter

from joserfc import jws, jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from mcp.server.auth.provider import AccessToken, AuthorizationCode, RefreshToken, construct_redirect_uri
from mcp.server.auth.routes import build_metadata, create_auth_routes
from mcp.server.auth.settings import ClientRegistrationOptions, RevocationOptions
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from pydantic import AnyHttpUrl
from starlette.applications import Starlette
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.support.listening import bound, listening
from tests.support.provider import Provider

DIRECTORY = "11111111-2222-3333-4444-555555555555"
FOREIGN = "99999999-2222-3333-4444-555555555555"
_RSA = []


def rsa(bits=2048):
    """An RSA key; made once for the whole run, for making one takes a while."""
    if not _RSA:
        _RSA.append(RSAKey.generate_key(bits))
    return _RSA[0]


def keyed(kind, kid):
    made = {
        "ES256": lambda: ECKey.generate_key("P-256"),
        "ES384": lambda: ECKey.generate_key("P-384"),
        "Ed25519": lambda: OKPKey.generate_key("Ed25519"),
        "RS256": rsa,
        "PS256": rsa,
    }[kind]()
    return type(made).import_key({**made.as_dict(private=True), "kid": kid})


class LocalIssuer:
    """Signs what a test wants signed, publishes what a test wants published, and counts who asks."""

    def __init__(self, url):
        self.url = url
        self.keys = {}
        self.published = []
        self.asked = Counter()
        self.trouble = None
        self.go_on = asyncio.Event()
        self.user = {"sub": "ana", "org": "acme-corp", "groups": ["staff"], "teams": ["north"]}
        self.clients = {}
        self.codes = {}
        self.claimed_issuer = url
        self.seen = []
        self.provider = Provider(self)
        self.rotate("ES256", "k1")

    def rotate(self, kind="ES256", kid="k2", *, drop=False, **more):
        """A new key that signs from now on; `drop` takes the others out of what is published."""
        self.keys[kid] = keyed(kind, kid)
        if drop:
            self.published.clear()
        self.published.append({**self.keys[kid].as_dict(private=False), "kid": kid, "use": "sig", "alg": kind, **more})
        self.newest = (kind, kid)

    def claims(self, **more):
        now = int(time.time())
        made = {"iss": self.url, "iat": now, "exp": now + 600, "jti": f"j{now}-{len(self.seen)}", **more}
        return {name: value for name, value in made.items() if value is not None}

    def token(self, *, header=None, key=None, **claims):
        """A signed token. A claim or header that is None is left out."""
        kind, kid = self.newest
        head = {"alg": kind, "kid": kid, "typ": "at+jwt", **(header or {})}
        head = {name: value for name, value in head.items() if value is not None}
        signing = key or self.keys.get(head.get("kid")) or self.keys[kid]
        return jwt.encode(head, self.claims(**claims), signing, algorithms=[head["alg"]])

    def raw(self, payload, **header):
        """A token over these very bytes."""
        kind, kid = self.newest
        head = {"alg": kind, "kid": kid, "typ": "at+jwt", **header}
        return jws.serialize_compact(head, payload, self.keys[kid], algorithms=[kind])

    def app(self):
        url = AnyHttpUrl(self.url)
        options = ClientRegistrationOptions(enabled=True, valid_scopes=["tools"], default_scopes=["tools"])
        metadata = build_metadata(url, None, options, RevocationOptions())
        metadata.client_id_metadata_document_supported = True
        metadata.token_endpoint_auth_methods_supported = ["client_secret_post", "none"]
        described = metadata.model_dump(mode="json", exclude_none=True)

        async def oauth(_):
            return JSONResponse({**described, "issuer": self.url})

        async def discovery(_):
            self.asked["discovery"] += 1
            said = {"issuer": self.claimed_issuer, "jwks_uri": f"{self.url}/jwks", **self.provider.describe()}
            return await self._troubled() or JSONResponse(said)

        async def jwks(_):
            self.asked["jwks"] += 1
            return await self._troubled() or JSONResponse({"keys": self.published})

        async def entra(request):
            self.asked["discovery"] += 1
            directory, older = request.path_params["directory"], "v2.0" not in request.url.path
            issuer = f"{self.url}/sts/{directory}/" if older else f"{self.url}/{directory}/v2.0"
            return JSONResponse({"issuer": issuer, "jwks_uri": f"{self.url}/jwks", **self.provider.describe()})

        guid = "/{directory:str}"
        found = "/.well-known/openid-configuration"
        routes = [
            Route("/.well-known/oauth-authorization-server", oauth),
            Route(found, discovery),
            Route(f"{guid}/v2.0{found}", entra),
            Route(f"{guid}{found}", entra),
            Route("/jwks", jwks),
        ]
        return Starlette(
            routes=[*routes, *self.provider.routes(), *create_auth_routes(self, url, None, options, RevocationOptions())]
        )

    async def _troubled(self):
        match self.trouble:
            case "hang":
                await self.go_on.wait()
            case "broken":
                return Response("no", status_code=500)
            case "huge":
                return StreamingResponse((b" " * 65_536 for _ in range(160)), media_type="application/json")
            case "elsewhere":
                return RedirectResponse(f"{self.url}/elsewhere")
            case "garbage":
                return Response(b'{"issuer": "a", "issuer": "b"}', media_type="application/json")
        return None

    # What the SDK's authorization endpoints ask for.

    async def get_client(self, client_id):
        known = self.clients.get(client_id)
        if known is None and client_id.startswith("https://client.example/"):
            # A client id metadata document: the client is whoever controls that address.
            known = OAuthClientInformationFull(
                client_id=client_id,
                redirect_uris=["http://127.0.0.1:9/callback"],
                token_endpoint_auth_method="none",
                scope="tools",
            )
        return known

    async def register_client(self, client_info):
        self.clients[client_info.client_id] = client_info

    async def authorize(self, client, params):
        code = AuthorizationCode(
            code=f"code-{len(self.codes)}",
            scopes=params.scopes or [],
            expires_at=time.time() + 60,
            client_id=client.client_id,
            code_challenge=params.code_challenge,
            redirect_uri=params.redirect_uri,
            redirect_uri_provided_explicitly=params.redirect_uri_provided_explicitly,
            resource=params.resource,
            subject=self.user["sub"],
        )
        self.codes[code.code] = code
        return construct_redirect_uri(str(params.redirect_uri), code=code.code, state=params.state)

    async def load_authorization_code(self, client, authorization_code):
        return self.codes.get(authorization_code)

    async def exchange_authorization_code(self, client, authorization_code):
        del self.codes[authorization_code.code]
        self.seen.append(authorization_code)
        token = self.token(
            **self.user,
            aud=authorization_code.resource,
            client_id=client.client_id,
            scope=" ".join(authorization_code.scopes),
            sid=f"login-{len(self.seen)}",
        )
        return OAuthToken(access_token=token, expires_in=600, scope=" ".join(authorization_code.scopes))

    async def load_refresh_token(self, client, refresh_token) -> RefreshToken | None:
        return None

    async def exchange_refresh_token(self, client, refresh_token, scopes):
        raise NotImplementedError

    async def load_access_token(self, token) -> AccessToken | None:
        return None

    async def revoke_token(self, token):
        return None


def secret_of(published):
    """What an attacker makes of a public key: a shared secret."""
    return OctKey.import_key(published["x"].encode())


@contextlib.asynccontextmanager
async def local_issuer():
    """A running issuer."""
    at = bound()
    issuer = LocalIssuer(f"http://127.0.0.1:{at.getsockname()[1]}")
    async with listening(issuer.app(), at, http="auto", lifespan="off"):
        try:
            yield issuer
        finally:
            issuer.go_on.set()
