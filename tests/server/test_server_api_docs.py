"""The page about the API names every operation, and what it shows by hand works."""

import re
import shlex
import string
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "api.md").read_text()


async def test_the_page_names_every_operation_and_no_other(office):
    document = (await office.get("/v1/openapi.json")).json()
    known = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    named = set(re.findall(r"`((?:GET|POST|PUT|DELETE) /[^`]*)`", PAGE.partition("## Answers")[0]))
    assert named - {"GET /v1/openapi.json"} == known - {"GET /v1/openapi.json"}


async def test_every_example_of_the_page_works(office):
    token, session = await office.session("ana")
    values = {
        "INTERLOCK": office.url,
        "SESSION": token,
        "SESSION_ID": session,
        "ANA": office.person("ana", "Staff"),
        "OKI": office.person("oki", "Operator"),
        "AUD": office.person("aud", "Auditor"),
        "DEE": office.person("dee", "Decider"),
    }
    examples = re.findall(r"^curl .*$", PAGE, re.MULTILINE)
    assert len(examples) >= 9
    for example in examples:
        words = shlex.split(string.Template(example).substitute(values))
        headers, body, url = {}, None, ""
        rest = iter(words[1:])
        for word in rest:
            if word == "-H":
                name, _, value = next(rest).partition(": ")
                headers[name] = value
            elif word == "-d":
                body = next(rest).encode()
            elif word != "-s":
                url = word
        answer = await office.http.request("GET" if body is None else "POST", url, headers=headers, content=body)
        assert answer.status_code == 200, (example, answer.text)
