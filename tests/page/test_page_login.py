"""Logging in as a person: the cookie, where it may come from, and where it leads."""

import pytest
from litestar import Response

from interlock.server.page import cookie
from interlock.server.page.cookie import LoginTooLargeError, set_login
from interlock.server.page.forms import form_token, local_path


async def test_a_persons_token_logs_in_and_its_cookie_can_be_read_by_no_script_and_sent_by_no_other_site(house):
    token = house.token()
    answer = await house.post("/login", {"token": f"  {token[:40]}\n{token[40:]} ", "next": "/page/trace/call_1"})
    assert answer.status_code == 200
    assert 'content="0;url=/page/trace/call_1"' in answer.text
    said = answer.headers["set-cookie"]
    assert said.startswith(f"interlock_person={token};")
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in said.split(";")}
    assert "Secure" not in said
    age = int(said.lower().partition("max-age=")[2].partition(";")[0])
    assert 200 < age <= 280


async def test_over_https_the_cookie_is_sent_over_https_only(house):
    answer = await house.post("/login", {"token": house.token()}, origin=house.url.replace("http:", "https:"))
    assert "Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize("use", ["session", "agent", "old", "none"])
async def test_what_is_no_persons_token_logs_nobody_in(house, use):
    session = await house.made.session()
    token = {
        "session": house.plane._tokens.issue(session),
        "agent": house.token(interlock_use="agent"),
        "old": house.token(lifetime_s=-1),
        "none": "nonsense",
    }[use]
    answer = await house.post("/login", {"token": token})
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert "is refused" in answer.text
    assert token not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example", "sec_fetch_site": None},
        {"origin": "null", "sec_fetch_site": None},
        {"origin": None, "sec_fetch_site": None},
        {"origin": None, "sec_fetch_site": "cross-site"},
        {"origin": None, "sec_fetch_site": "same-site"},
        {"origin": None, "sec_fetch_site": "none"},
        {"origin": "http://127.0.0.1:1", "sec_fetch_site": None},
        {"sec_fetch_site": "same-site"},
    ],
)
async def test_no_other_page_logs_a_browser_in_or_out(house, headers):
    token = house.token()
    answer = await house.post("/login", {"token": token}, **headers)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers
    answer = await house.post("/logout", {"form_token": form_token(token)}, token, **headers)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


async def test_logging_out_needs_the_value_of_this_login_and_clears_the_cookie(house):
    token, other = house.token(), house.token(user="eve")
    for wrong in ({"x": ""}, {"form_token": ""}, {"form_token": form_token(other)}):
        assert (await house.post("/logout", wrong, token)).status_code == 403
    answer = await house.post("/logout", {"form_token": form_token(token)}, token)
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert "Max-Age=0" in answer.headers["set-cookie"]


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example/",
        "\\\\evil.example",
        "/\t/evil.example",
        "/\n/evil.example",
        "javascript:alert(1)",
        "/page\r\nset-cookie: a=b",
        "",
        "evil",
        "/" + "a" * 2_000,
    ],
)
async def test_after_logging_in_nobody_is_sent_elsewhere(house, target):
    assert local_path(target) == "/"
    answer = await house.post("/login", {"token": house.token(), "next": target.replace("\n", "").replace("\r", "")})
    assert 'content="0;url=/"' in answer.text or answer.status_code == 400


async def test_two_cookies_of_the_same_name_are_none(house):
    token = house.token()
    answer = await house.get("/login", cookie=f"interlock_person={token}; interlock_person={house.token(user='eve')}")
    assert answer.status_code == 200
    assert "Log in as yourself" in answer.text
    assert (await house.get("/login", cookie=f"interlock_person={token}")).status_code == 303


async def test_every_page_forbids_frames_inline_scripts_and_anything_from_elsewhere(house):
    for path in ("/login", "/page/nothing", "/logout"):
        headers = (await house.get(path)).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


def test_a_token_that_browsers_would_drop_is_refused_aloud():
    answer = Response("")
    with pytest.raises(LoginTooLargeError):
        set_login(answer, "x" * (cookie.MAX_COOKIE_CHARS + 1), 60, secure=True)
    assert answer.cookies == []
