"""The part of the local issuer that logs people in: OpenID Connect's code flow, device codes, refresh tokens, userinfo.

It is strict where a real one is (exact redirect addresses, PKCE, single use), and says wrong things when a test wants them.
"""

import base64
import hashlib
import time
from urllib.parse import parse_qsl, unquote, urlencode

from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

GRANT = "urn:ietf:params:oauth:grant-type:device_code"


def half_hash(text, size="256"):
    digest = hashlib.new(f"sha{size}", text.encode()).digest()
    return base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode()


class Provider:
    """`clients` maps client id to secret (empty: public) and redirect addresses; `said` changes what ID tokens say."""

    def __init__(self, issuer):
        self.issuer = issuer
        self.clients = {}
        self.audience = ""
        self.said = {}
        self.header = {}
        self.more_userinfo = {}
        self.answer_iss = issuer.url
        self.document = {}
        self.interactive = False
        self.devices_offered = True
        self.rotates = True
        self.opened = {}
        self.spent = []
        self.refresh = {}
        self.devices = {}
        self.asked = []
        self.forms = []

    def describe(self):
        url = self.issuer.url
        said = {
            "authorization_endpoint": f"{url}/oidc/authorize",
            "token_endpoint": f"{url}/oidc/token",
            "userinfo_endpoint": f"{url}/oidc/userinfo",
            "revocation_endpoint": f"{url}/oidc/revoke",
            "authorization_response_iss_parameter_supported": bool(self.answer_iss),
        }
        if self.devices_offered:
            said["device_authorization_endpoint"] = f"{url}/oidc/device"
        return {name: value for name, value in {**said, **self.document}.items() if value is not None}

    def routes(self):
        return [
            Route("/oidc/authorize", self.authorize),
            Route("/oidc/token", self.token, methods=["POST"]),
            Route("/oidc/device", self.device, methods=["POST"]),
            Route("/oidc/activate", self.activate),
            Route("/oidc/userinfo", self.userinfo),
            Route("/oidc/revoke", self.revoke, methods=["POST"]),
        ]

    async def authorize(self, request):
        asked = dict(request.query_params)
        client = self.clients.get(asked.get("client_id"))
        uri = asked.get("redirect_uri", "")
        # Loopback ports may differ (RFC 8252, 7.3); everything else is compared to the letter.
        fine = client is not None and (
            uri in client["redirects"] or ("loopback" in client["redirects"] and uri.startswith("http://127.0.0.1:"))
        )
        if not fine or asked.get("response_type") != "code" or asked.get("code_challenge_method") != "S256":
            return Response("no", status_code=400)
        if self.interactive and "yes" not in asked:
            return HTMLResponse(
                f'<title>Corp</title><a href="/oidc/authorize?{request.url.query.replace("&", "&amp;")}&amp;yes=1">Go on as {self.issuer.user["sub"]}</a>'
            )
        self.asked.append(asked)
        code = f"oidc-{len(self.asked)}"
        self.opened[code] = (asked, dict(self.issuer.user))
        answer = {"code": code, "state": asked["state"], **({"iss": self.answer_iss} if self.answer_iss else {})}
        return RedirectResponse(f"{uri}?{urlencode(answer)}", status_code=303)

    async def token(self, request):
        form = dict(parse_qsl((await request.body()).decode()))
        self.forms.append(form)
        client_id, secret = form.get("client_id"), form.get("client_secret", "")
        scheme, _, pair = request.headers.get("authorization", "").partition(" ")
        if scheme == "Basic":
            client_id, secret = (unquote(part) for part in base64.b64decode(pair).decode().split(":"))
        client = self.clients.get(client_id)
        if client is None or client["secret"] != secret:
            return JSONResponse({"error": "invalid_client"}, status_code=401)
        match form.get("grant_type"):
            case "authorization_code":
                asked, user = self.opened.pop(form["code"], ({}, None))
                proof = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=").decode()
                wrong = (asked.get("client_id"), asked.get("redirect_uri"), asked.get("code_challenge")) != (
                    client_id,
                    form["redirect_uri"],
                    proof,
                )
                if user is None or wrong:
                    return JSONResponse({"error": "invalid_grant"}, status_code=400)
                return JSONResponse(self.tokens(client_id, user, asked.get("scope", ""), asked.get("nonce")))
            case "refresh_token":
                found = self.refresh.get(form["refresh_token"])
                if found is None:
                    return JSONResponse({"error": "invalid_grant"}, status_code=400)
                if self.rotates:
                    del self.refresh[form["refresh_token"]]
                # What is said of somebody is said anew: roles may have been lost.
                return JSONResponse(self.tokens(client_id, dict(self.issuer.user), found, None, rotated=self.rotates))
            case _ if form.get("grant_type") == GRANT:
                user = self.devices.get(form["device_code"])
                if user is None:
                    return JSONResponse({"error": "authorization_pending"}, status_code=400)
                del self.devices[form["device_code"]]
                return JSONResponse(self.tokens(client_id, user, "openid offline_access", None))
        return JSONResponse({"error": "unsupported_grant_type"}, status_code=400)

    def tokens(self, client_id, user, scope, nonce, *, rotated=True):
        now = int(time.time())
        access = self.issuer.token(**user, aud=self.audience, client_id=client_id, scope=scope, jti=f"at-{len(self.forms)}")
        said = {
            **user,
            "aud": client_id,
            "nonce": nonce,
            "at_hash": half_hash(access),
            "iat": now,
            "exp": now + 600,
            **self.said,
        }
        made = {"token_type": "Bearer", "access_token": access, "expires_in": 600}
        made["id_token"] = self.issuer.token(header={"typ": "JWT", **self.header}, **said)
        if "offline_access" in scope and rotated:
            made["refresh_token"] = f"refresh-{len(self.forms)}"
            self.refresh[made["refresh_token"]] = scope
        return made

    async def device(self, request):
        form = dict(parse_qsl((await request.body()).decode()))
        self.forms.append(form)
        code = f"device-{len(self.forms)}"
        self.devices[code] = None
        there = f"{self.issuer.url}/oidc/activate"
        answer = {"device_code": code, "user_code": code.upper(), "verification_uri": there, "expires_in": 600, "interval": 5}
        return JSONResponse(answer)

    async def activate(self, request):
        self.devices[request.query_params["user_code"].lower()] = dict(self.issuer.user)
        return Response("done")

    async def userinfo(self, request):
        token = request.headers["authorization"].removeprefix("Bearer ")
        self.asked.append({"userinfo": token})
        return JSONResponse({"sub": self.issuer.user["sub"], **self.more_userinfo})

    async def revoke(self, request):
        form = dict(parse_qsl((await request.body()).decode()))
        self.refresh.pop(form["token"], None)
        self.spent.append(form["token"])
        return Response("")
