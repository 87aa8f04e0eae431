"""Endpoints, against a real HTTP server that misbehaves on purpose."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import math
import threading
import time
from collections import Counter
from concurrent.futures import CancelledError
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image, ImageChops

from argus.core.errors import ArgusError, RecipeError, UnsupportedError
from argus.evaluation import engine
from argus.evaluation.endpoint import EndpointModel, RefusedError, UnansweredError
from argus.evaluation.endpoint_messages import first_token_scores
from argus.evaluation.endpoint_reference import parse_reference
from argus.evaluation.engine import evaluate
from argus.evaluation.inferencers.search import Looks
from argus.evaluation.options import EvaluationOptions
from argus.evaluation.records import MemoryRecords
from argus.evaluation.scenarios.base import Group
from argus.methods.search.base import Look, View
from argus.runner.plan import plan

from .conftest import QUESTIONS, picture, question

pytest.importorskip("httpx")


class Server(ThreadingHTTPServer):
    """A chat endpoint that answers `red`, after the faults it was told to have."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults: list[str] = []
        self.always = ""
        self.bodies: list[dict] = []
        self.keys: list[str | None] = []
        self.top: dict[str, float] | None = {"A": math.log(0.5), " B": math.log(0.25), "x": math.log(0.01)}
        self.lock, self.under_way, self.most = threading.Lock(), 0, 0
        self.delay = 0.0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *args):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            server.bodies.append(body)
            server.keys.append(self.headers["Authorization"])
            fault = server.faults.pop(0) if server.faults else server.always
            server.under_way += 1
            server.most = max(server.most, server.under_way)
        time.sleep(1.0 if fault == "hang" else server.delay)
        with server.lock:
            server.under_way -= 1
        if fault == "drop":
            self.close_connection = True
            self.connection.close()
            return
        choice = {"message": {"role": "assistant", "content": None if fault == "null" else "red"}}
        if body.get("logprobs") and server.top is not None:
            rows = [{"token": t, "logprob": p} for t, p in server.top.items()]
            choice["logprobs"] = {"content": [{"token": "A", "logprob": 0.0, "top_logprobs": rows}]}
        answer = {"choices": [] if fault == "empty" else [choice], "usage": {"prompt_tokens": 10, "completion_tokens": 2}}
        text = json.dumps(answer).encode()
        text = text[: len(text) // 2] if fault == "torn" else text
        self.send_response(int(fault) if fault.isdigit() else 200)
        if fault == "429":
            self.send_header("Retry-After", "0.2")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


@pytest.fixture
def server():
    with Server() as made:
        threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
        yield made
        made.shutdown()


@pytest.fixture
def endpoint(server):
    made = []

    def connect(options="backoff=0.01&timeout=10"):
        made.append(EndpointModel(f"openai:tiny@http://127.0.0.1:{server.server_port}/v1#{options}"))
        return made[-1]

    yield connect
    for one in made:
        one.close()


ASKED = question(0, 0, "Which colour?", ("red", "green"))


class Listed:
    def __init__(self, groups):
        self.all = groups

    def groups(self, samples, seed):
        yield from self.all


@pytest.fixture
def ask(monkeypatch):
    groups = [Group(f"p{g}", [question(g, n, t, o).sample for n, (t, o) in enumerate(QUESTIONS)]) for g in range(5)]

    def run(model, records=None, inferencer="generate", metrics=("accuracy",)):
        monkeypatch.setattr(engine, "build_scenario", lambda _: Listed(groups))
        options = EvaluationOptions(scenario="world/objects", inferencer=inferencer, metrics=list(metrics))
        return evaluate(model, None, options, run_part=records)

    return run


def test_the_picture_arrives_as_it_was(server, endpoint):
    (answer,) = endpoint().generate([ASKED], 7)
    assert (answer.text, answer.tokens) == ("red", 2)
    (body,) = server.bodies
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("tiny", 7, 0)
    shown, text = body["messages"][0]["content"]
    assert text == {"type": "text", "text": "Which colour?"}
    data = base64.b64decode(shown["image_url"]["url"].removeprefix("data:image/png;base64,"))
    assert ImageChops.difference(Image.open(io.BytesIO(data)), picture(0)).getbbox() is None


@pytest.mark.parametrize("fault", ["429", "500", "503", "hang", "torn", "empty", "null", "drop"])
def test_what_may_pass_is_tried_again(server, endpoint, fault):
    server.faults = [fault]
    model = endpoint(f"backoff=0.01&timeout={0.5 if fault == 'hang' else 10}")
    assert model.generate([ASKED], 4)[0].text == "red"
    assert (model.usage.requests, model.usage.failed) == (2, 1)


def test_closing_lets_nobody_wait(server, endpoint):
    server.delay = 3.0
    model, ended = endpoint(), []

    def asks():
        with contextlib.suppress(CancelledError):
            model.generate([ASKED], 4)
        ended.append(True)

    thread = threading.Thread(target=asks, daemon=True)
    thread.start()
    while not server.under_way:
        time.sleep(0.01)
    model.close()
    thread.join(2.0)
    assert ended
    with pytest.raises(ArgusError, match="closed"):
        model.generate([ASKED], 4)


def test_retry_after_is_respected(server, endpoint):
    server.faults = ["429"]
    start = time.monotonic()
    endpoint("backoff=0").generate([ASKED], 4)
    assert time.monotonic() - start >= 0.2


def test_tries_are_counted_and_end(server, endpoint):
    server.always = "500"
    with pytest.raises(UnansweredError, match="no answer in 3 tries; the last: HTTP 500"):
        endpoint("retries=2&backoff=0.01").generate([ASKED], 4)
    assert len(server.bodies) == 3


def test_a_refusal_is_not_tried_again_and_stops_the_run(server, endpoint, ask):
    server.always = "401"
    with pytest.raises(RefusedError, match="HTTP 401"):
        ask(endpoint("concurrency=1"))
    assert len(server.bodies) == 1


def test_the_key_comes_from_the_named_variable(server, endpoint, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "usual")
    monkeypatch.setenv("OTHER", "named")
    endpoint().generate([ASKED], 1)
    endpoint("key_variable=OTHER").generate([ASKED], 1)
    endpoint("key_variable=UNSET_HERE").generate([ASKED], 1)
    assert server.keys == ["Bearer usual", "Bearer named", None]


def test_concurrency_is_used_and_bounded(server, endpoint, ask):
    server.delay = 0.05
    assert ask(endpoint("concurrency=4")).answered == 15
    assert server.most == 4


def test_the_rate_is_limited(endpoint):
    start = time.monotonic()
    endpoint("requests_per_minute=1200").generate([ASKED] * 5, 1)
    assert time.monotonic() - start >= 4 * 0.05


def test_questions_are_taken_only_as_answers_come(endpoint):
    taken, most = 0, 0

    def many():
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield ASKED

    for done, _ in enumerate(endpoint("concurrency=4").each(lambda q: q.group, many()), start=1):
        most = max(most, taken - done)
    assert (taken, most <= 4) == (100, True)


def test_recorded_answers_are_never_asked_again(server, endpoint, ask):
    whole = MemoryRecords()
    expected = ask(endpoint(), whole)
    assert (expected.answered, len(server.bodies)) == (15, 15)
    for kept in (0, 1, 7, 16):
        server.bodies.clear()
        part = MemoryRecords(list(whole.rows[:kept]))
        result = ask(endpoint(), part)
        assert len(server.bodies) == 16 - max(kept, 1)  # the first record is the seed
        assert Counter(r["id"] for r in part.rows) == Counter(r["id"] for r in whole.rows)
        assert result.value("accuracy") == expected.value("accuracy") == pytest.approx(1 / 3)


def test_questions_without_an_answer_are_counted(server, endpoint, ask):
    server.faults = ["200"] * 5 + ["500"] * 2
    result = ask(endpoint("concurrency=1&retries=1&backoff=0"))
    assert (result.answered, sum(result.errors.values())) == (14, 1)
    assert "HTTP 500" in next(iter(result.errors))


def test_a_dead_server_is_an_error(server, endpoint, ask):
    server.always = "drop"
    with pytest.raises(UnansweredError):
        ask(endpoint("retries=1&backoff=0"))


def test_scores_are_those_of_the_first_token(endpoint):
    a, b, c = endpoint().score([question(0, 0, "Which?", ("A", "B", "C"))], False)[0]
    assert (math.exp(a), math.exp(b), math.exp(c)) == pytest.approx((0.5, 0.25, 0.01))


@pytest.mark.parametrize("answers", ["nothing", "400"])
def test_likelihood_without_log_probabilities_is_refused_first(server, endpoint, ask, answers):
    server.top, server.always = None, "400" if answers == "400" else ""
    records = MemoryRecords()
    with pytest.raises(UnsupportedError, match=r"log-probabilities.*`generate`"):
        ask(endpoint(), records, inferencer="likelihood")
    assert (len(server.bodies), records.rows) == (1, [])


def test_options_that_begin_alike_cannot_be_told_apart():
    assert first_token_scores(["yes", "no"], {"y": math.log(0.2), "yes": math.log(0.3), "no": -3.0})[0] == pytest.approx(
        math.log(0.5)
    )
    with pytest.raises(UnsupportedError, match=r"'12' and '1' begin with the same token '1'.*lettered"):
        first_token_scores(["12", "1"], {"1": -0.1})


def test_costs_are_refused(endpoint, ask):
    with pytest.raises(UnsupportedError, match="kv_bytes"):
        ask(endpoint(), metrics=["accuracy", "kv_bytes"])


def test_tokens_have_a_price(endpoint):
    model = endpoint("input_price=3&output_price=15")
    model.generate([ASKED] * 4, 1)
    assert model.cost() == pytest.approx((40 * 3 + 8 * 15) / 1e6)
    assert model.bill() == "tiny: 4 requests, 0 of them failed; 40 prompt tokens, 8 generated, cost 0.0002"


def test_references():
    name, url, options = parse_reference("openai:org/model@2@https://host:8/v1/#concurrency=3")
    assert (name, url, options.concurrency, options.key_variable) == ("org/model@2", "https://host:8/v1", 3, "OPENAI_API_KEY")
    for wrong in ("openai:name", "openai:@http://host", "openai:name@host"):
        with pytest.raises(ArgusError, match="openai:<name>@<base-url>"):
            parse_reference(wrong)
    with pytest.raises(RecipeError, match="Did you mean 'concurrency'"):
        parse_reference("openai:name@http://host#concurency=3")


def test_a_recipe_cannot_attach_to_an_endpoint(tmp_path):
    file = tmp_path / "remote.yaml"
    text = 'name: R\nmodel: {from: "openai:m@http://host/v1"}\nevaluate: [{scenario: world/objects, inferencer: generate}]\n'
    file.write_text(text)
    assert plan(file).models["full"].reference == "openai:m@http://host/v1"
    file.write_text(text + "variants: {cut: {attach: {fastv: {keep: 0.5}}}}\n")
    with pytest.raises(RecipeError, match="cannot attach fastv"):
        plan(file)


def test_a_search_reads_yes_and_no_from_top_log_probabilities(endpoint, server):
    """tanh((log 0.6 - log 0.2) / 2) = (0.6 - 0.2) / (0.6 + 0.2) = 0.5; without log-probabilities it is refused."""
    server.top = {"Yes": math.log(0.6), "No": math.log(0.2), "Perhaps": math.log(0.1)}
    look = Look(View("p", (picture(0),)), "Is there a star?", ("Yes", "No"))
    assert Looks(endpoint(), 64).confidences([look]) == pytest.approx([0.5])
    server.top = None
    with pytest.raises(UnsupportedError, match="no top log-probabilities"):
        Looks(endpoint(), 64).confidences([look])
