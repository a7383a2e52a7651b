"""Servers: what is sent, what is put again, what is refused, and that nothing is lost or asked twice."""

import asyncio
import itertools
import json
import signal
import subprocess
import sys
import threading
import time

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops

from eyechart.core.errors import Incapable, UserError
from eyechart.core.files import JsonLines
from eyechart.core.records import Capability, Prompt
from eyechart.models.servers import Server, Unanswered, is_server, parse_server
from eyechart.models.servers.exchange import LONGEST_WAIT, wait_before
from eyechart.models.servers.responses import retry_after
from pictures import picture
from server_parts import closed_port, completion, fake_server, seeded

KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def no_key_of_the_machine(monkeypatch):
    for name in ("OPENAI_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def prompts(count, *, images=False):
    for number in range(count):
        pictures = (Image.new("RGB", (4, 4), (number % 256, 0, 0)),) if images else ()
        yield f"i{number}", Prompt(text=f"q{number}", images=pictures)


def quick(fake, **options):
    return Server(fake.base_url, **{"first_wait": 0.01, "timeout": 5.0, **options})


def all_of(server, count, **options):
    return dict(server.replies(prompts(count, **options), max_new_tokens=16))


# ---- what is sent


def test_the_request_is_greedy_and_holds_the_very_pixels_before_the_text():
    shown = picture(31, 17), picture(8, 9)
    with fake_server() as fake, quick(fake) as server:
        asked = Prompt(text="Which?\n(a) x", images=shown)
        assert dict(server.replies([("1", asked)], max_new_tokens=7)) == {"1": "reply to Which?\n(a) x"}
    (body,) = fake.bodies
    assert body.keys() == {"model", "messages", "temperature", "max_tokens"}
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("fake-vlm", 0, 7)
    assert [part["type"] for part in body["messages"][0]["content"]] == ["image_url", "image_url", "text"]
    for sent, image in zip(fake.images["Which?\n(a) x"], shown, strict=True):
        assert sent.mode == "RGB"
        assert ImageChops.difference(sent, image).getbbox() is None


def test_without_images_the_content_is_a_plain_text_and_a_seed_is_sent_where_given():
    with fake_server() as fake, quick(fake, seed=5) as server:
        assert server.generate([Prompt(text="a"), Prompt(text="b")], max_new_tokens=2) == [
            "reply to a",
            "reply to b",
        ]
    assert {body["messages"][0]["content"] for body in fake.bodies} == {"a", "b"}
    assert {body["seed"] for body in fake.bodies} == {5}


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://localhost:8000", "http://localhost:8000/v1"),
        ("http://localhost:8000/", "http://localhost:8000/v1"),
        ("http://localhost:8000/v1/", "http://localhost:8000/v1"),
        (" https://api.example.org/v1/chat/completions ", "https://api.example.org/v1"),
        ("https://example.org/api", "https://example.org/api/v1"),
        ("https://example.org/v1beta/openai/", "https://example.org/v1beta/openai"),
        ("http://[::1]:80/", "http://[::1]/v1"),
    ],
)
def test_urls_with_and_without_version(text, url):
    assert parse_server(text) == url
    assert parse_server(url) == url
    assert is_server(text.strip())


@pytest.mark.parametrize(
    "text", ["localhost:8000", "ftp://x/v1", "http://", "zoo:llava", "http://a:b:c/", ""]
)
def test_what_is_no_url_is_refused(text):
    with pytest.raises(UserError, match="http://localhost:8000/v1"):
        parse_server(text)


@pytest.mark.parametrize(
    "text",
    [f"http://me:{KEY}@host/v1", f"http://host/v1?key={KEY}", f"http://{KEY}@host", f"http://host/#{KEY}"],
)
def test_a_url_that_holds_a_key_is_refused_and_not_repeated(text):
    with pytest.raises(UserError, match="OPENAI_API_KEY") as caught:
        Server(text)
    assert KEY not in str(caught.value)


# ---- the key


def test_the_key_comes_from_the_argument_then_the_environment_then_is_empty(monkeypatch):
    with fake_server() as fake:
        for given, environment, sent in (
            (KEY, "other", KEY),
            (None, f"{KEY}\n", KEY),
            (None, "", "EMPTY"),
            ("EMPTY", "other", "EMPTY"),
        ):
            monkeypatch.setenv("OPENAI_API_KEY", environment)
            with quick(fake, api_key=given) as server:
                all_of(server, 1)
            assert fake.headers[-1]["Authorization"] == f"Bearer {sent}"


def test_the_key_is_in_no_record_and_no_error():
    with fake_server(key=KEY) as fake:
        with pytest.raises(UserError, match=r"refuses the key \(HTTP 401: bad Bearer \[key\]\)") as caught:
            quick(fake, api_key=KEY + "x")
        assert KEY not in str(caught.value)
        fake.script = lambda question, before: f"garbage {KEY}"
        with quick(fake, api_key=KEY, retries=0) as server:
            with pytest.raises(Unanswered) as caught:
                all_of(server, 1)
            assert KEY not in json.dumps(server.describe()) + repr(server) + str(caught.value)
    with pytest.raises(UserError, match="no header can carry") as caught:
        Server("http://localhost", api_key=f"{KEY} \N{EM DASH}")
    assert KEY not in str(caught.value)


# ---- which model


def test_the_one_model_is_found_and_several_must_be_named():
    with fake_server() as fake:
        with quick(fake) as server:
            assert server.model == "fake-vlm"
        fake.models = {"data": [{"id": "a"}, {"id": "b"}]}
        with pytest.raises(UserError, match=r"serves 2 models \(a, b\); say which one"):
            quick(fake)
        with quick(fake, model="b") as server:
            all_of(server, 1)
        assert fake.bodies[-1]["model"] == "b"


@pytest.mark.parametrize(
    "models", [(500, "Internal Server Error"), (404, "{}"), (200, "<html>"), {"data": []}, {"data": 3}]
)
def test_a_server_that_lists_nothing_is_asked_for_the_model_that_was_named(models):
    with fake_server(models=models) as fake:
        with pytest.raises(UserError, match="serves 0 models"):
            quick(fake)
        with quick(fake, model="some/folder") as server:
            assert all_of(server, 2) == {"i0": "reply to q0", "i1": "reply to q1"}


def test_nobody_there_is_said_at_once_and_a_named_model_is_looked_for_only_when_asked():
    url = f"http://127.0.0.1:{closed_port()}"
    with pytest.raises(UserError, match=f"no server answers at {url}/v1 .*is it running"):
        Server(url)
    with Server(url, model="m") as server:
        assert dict(server.replies([], max_new_tokens=1)) == {}
        assert server.describe()["id"] == f"m at {url}/v1"
        start = time.monotonic()
        with pytest.raises(UserError, match="no server answers"):
            all_of(server, 3)
        assert time.monotonic() - start < 10


def test_it_says_what_it_is():
    def script(question, before):
        number = int(question[1:])
        return completion(
            "x", finish="length" if number == 3 else "stop", system_fingerprint=f"fp{number % 2}"
        )

    with fake_server(script=script) as fake, quick(fake) as server:
        all_of(server, 4)
        described = server.describe()
        assert json.loads(json.dumps(described)) == described
        assert described["id"] == f"fake-vlm at {fake.base_url}/v1"
        assert described["served"] == {"owned_by": "test"}
        assert described["system_fingerprints"] == ["fp0", "fp1"]
        assert described["finish_reasons"] == {"length": 1, "stop": 3}
        assert described["answered_as"] == ["fake-vlm"]
        assert described["capabilities"] == ["generate"]
        assert described["cannot"].keys() == {one.value for one in Capability} - {"generate"}
        assert any("1 of 4 replies were cut" in note for note in described["notes"])
        assert any("2 system fingerprints: fp0, fp1" in note for note in described["notes"])
        server.require(Capability.GENERATE, for_="asking")
        with pytest.raises(
            Incapable, match="locating needs the capability 'hidden_states', which fake-vlm at"
        ):
            server.require(Capability.HIDDEN_STATES, for_="locating")


# ---- faults


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_whatever_goes_wrong_every_item_is_answered_once(seed):
    with fake_server(script=seeded(seed)) as fake, quick(fake, concurrency=6) as server:
        pairs = list(server.replies(prompts(40, images=True), max_new_tokens=16))
    assert sorted(pairs) == sorted((f"i{n}", f"reply to q{n}") for n in range(40))
    assert set(fake.answered.values()) == {1}
    assert fake.asked.total() > 50, "the script has faults"
    assert server.describe()["repeated"] == fake.asked.total() - 40
    assert fake.most_at_once <= 6


def test_a_server_that_stalls_or_trickles_is_left_after_the_timeout():
    with fake_server(script=lambda question, before: "stall" if before == 0 else "ok") as fake:
        with quick(fake, timeout=0.3) as server:
            assert len(all_of(server, 3)) == 3
        assert set(fake.asked.values()) == {2}

    class Trickle(httpx.AsyncByteStream):
        async def __aiter__(self):
            while True:
                await asyncio.sleep(0.05)
                yield b" "

    def handler(request):
        return httpx.Response(200, stream=Trickle()) if request.method == "POST" else httpx.Response(404)

    with Server(
        "http://x", model="m", timeout=0.3, retries=0, transport=httpx.MockTransport(handler)
    ) as server:
        with pytest.raises(Unanswered, match=r"no answer within 0\.3 s"):
            all_of(server, 1)


def test_a_body_without_end_is_left():
    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self):
            while True:
                yield b" " * 2**20

    def handler(request):
        return httpx.Response(200, stream=Endless()) if request.method == "POST" else httpx.Response(404)

    with Server("http://x", model="m", retries=0, transport=httpx.MockTransport(handler)) as server:
        with pytest.raises(Unanswered, match="a response of more than"):
            all_of(server, 1)


def test_retry_after_holds_everybody_back():
    """One question is told to wait; no other is put meanwhile."""
    times = []

    def script(question, before):
        times.append(time.monotonic())
        return (429, "{}", {"Retry-After": "0.5"}) if question == "q0" and before == 0 else "ok"

    with fake_server(script=script, delay=0.05) as fake, quick(fake, concurrency=2) as server:
        assert len(all_of(server, 6)) == 6
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert max(gaps) > 0.4
    assert fake.asked["q0"] == 2


@pytest.mark.slow
def test_a_busy_server_that_goes_on_answering_loses_nothing():
    """It answers one request of every eight, so at most seven in a row are turned away: no question gives up."""
    count = itertools.count()

    def script(question, before):
        return "ok" if next(count) % 8 == 7 else (429, "{}", {"Retry-After": "0.01"})

    with fake_server(script=script) as fake, quick(fake, retries=7, concurrency=8) as server:
        assert len(all_of(server, 20)) == 20
    assert fake.asked.total() == 160


def test_a_server_that_is_busy_for_an_hour_is_not_waited_for():
    script = lambda question, before: (429, "{}", {"Retry-After": "3600"})  # noqa: E731
    with fake_server(script=script) as fake, quick(fake) as server:
        with pytest.raises(Unanswered, match="says to come back in 3600 s"):
            all_of(server, 2)
        assert set(fake.asked.values()) == {1}


@pytest.mark.parametrize("content", ["", [{"type": "text", "text": ""}]])
def test_an_empty_reply_is_a_reply(content):
    with fake_server(script=lambda *_: completion(content)) as fake, quick(fake) as server:
        assert all_of(server, 2) == {"i0": "", "i1": ""}
        assert set(fake.asked.values()) == {1}


@pytest.mark.parametrize(
    ("message", "finish", "reply"),
    [
        ({"content": None, "reasoning_content": "It may be"}, "length", ""),
        ({"content": None}, "content_filter", ""),
        ({"content": None, "refusal": "I won't."}, "stop", "I won't."),
        ({"content": [{"type": "text", "text": "A"}, {"type": "text", "text": "."}]}, "stop", "A."),
    ],
)
def test_answers_of_other_shapes(message, finish, reply):
    with fake_server(script=lambda *_: completion("", finish=finish, message=message)) as fake:
        with quick(fake) as server:
            assert all_of(server, 1) == {"i0": reply}
            assert ("filter" in " ".join(server.notes)) == (finish == "content_filter")


@pytest.mark.parametrize("fault", ["drop", "half", "", "{", "null", "[]", '{"choices": [{"message": {"content": null}}]}', (500, "x", {})])  # fmt: skip
def test_what_is_never_answered_is_listed_and_the_others_go_on(fault):
    def script(question, before):
        return fault if question in ("q2", "q5") else "ok"

    with fake_server(script=script) as fake, quick(fake, retries=2, concurrency=4) as server:
        got = []
        with pytest.raises(
            Unanswered, match=r"did not answer 2 questions \(i[25], i[25]\); the first:"
        ) as caught:
            got.extend(server.replies(prompts(9), max_new_tokens=4))
        assert "the same command asks only these again" in str(caught.value)
        assert caught.value.missing.keys() == {"i2", "i5"}
        assert {key for key, _ in got} == {f"i{n}" for n in (0, 1, 3, 4, 6, 7, 8)}
        assert (fake.asked["q2"], fake.asked["q5"]) == (3, 3)
        fake.script = lambda *_: "ok"
        again = [(key, one) for key, one in prompts(9) if key in caught.value.missing]
        assert dict(server.replies(again, max_new_tokens=4)).keys() == {"i2", "i5"}
        assert set(fake.answered.values()) == {1}


@pytest.mark.parametrize("status", [401, 403, 404, 301, 418])
def test_a_refused_key_or_address_ends_it_at_once_after_what_was_under_way(status):
    def script(question, before):
        return (status, json.dumps({"error": {"message": "no such model"}}), {}) if question == "q3" else "ok"

    with fake_server(script=script) as fake, quick(fake, concurrency=2) as server:
        got = []
        with pytest.raises(UserError, match=f"HTTP {status}") as caught:
            got.extend(server.replies(prompts(50), max_new_tokens=4))
        assert not isinstance(caught.value, Unanswered)
        assert fake.asked["q3"] == 1
        assert len(got) == fake.answered.total() < 8


@pytest.mark.parametrize("status", [400, 413, 422])
def test_one_refused_question_does_not_end_the_others_and_is_put_once(status):
    def script(question, before):
        return (
            (status, json.dumps({"detail": "image too big"}), {})
            if question in ("q0", "q1", "q7", "q8")
            else "ok"
        )

    with fake_server(script=script) as fake, quick(fake, concurrency=1) as server:
        with pytest.raises(
            Unanswered, match=rf"4 questions .*refuses the question \(HTTP {status}: image too big\)"
        ):
            all_of(server, 10)
        assert fake.answered.total() == 6
        assert set(fake.asked.values()) == {1}


def test_where_all_are_refused_or_fail_the_rest_is_not_asked():
    for act, asked in (((400, "{}", {}), 3), ((500, "{}", {}), 6)):
        with (
            fake_server(script=lambda *_, act=act: act) as fake,
            quick(fake, concurrency=1, retries=1) as server,
        ):
            with pytest.raises(Unanswered, match=r"3 questions .*any after them were not asked"):
                all_of(server, 1000)
            assert fake.asked.total() == asked


def test_a_server_that_goes_down_ends_the_asking():
    def script(question, before):
        return "ok" if int(question[1:]) < 10 else "drop"

    with fake_server(script=script) as fake, quick(fake, concurrency=4, retries=1) as server:
        got = []
        with pytest.raises(Unanswered, match="any after them were not asked"):
            got.extend(server.replies(prompts(10**6), max_new_tokens=4))
        assert len(got) == 10
        assert len(fake.asked) < 30


def test_models_that_want_the_newer_name_of_the_limit_get_it():
    def script(question, before):
        if "max_tokens" in fake.bodies[-1]:
            return 400, json.dumps({"error": {"message": "Use 'max_completion_tokens' instead."}}), {}
        return "ok"

    with fake_server(script=script) as fake, quick(fake, concurrency=1) as server:
        assert len(all_of(server, 3)) == 3
        assert [body.get("max_completion_tokens") for body in fake.bodies] == [None, 16, 16, 16]


# ---- many at once


def test_concurrency_is_reached_and_never_exceeded():
    """Nobody is answered before five questions are there; a sixth would be seen."""
    together = threading.Event()

    def script(question, before):
        if fake.at_once == 5:
            time.sleep(0.1)
            together.set()
        return "ok" if together.wait(20) else "drop"

    with fake_server(script=script) as fake, quick(fake, concurrency=5, timeout=30.0) as server:
        assert len(all_of(server, 20)) == 20
    assert fake.most_at_once == 5
    assert set(fake.asked.values()) == {1}


def test_replies_come_in_any_order():
    others = threading.Event()

    def script(question, before):
        if question == "q3":
            others.set()
        elif question == "q0":
            others.wait(20)
        return "ok"

    with fake_server(script=script) as fake, quick(fake, concurrency=2, timeout=30.0) as server:
        order = [key for key, _ in server.replies(prompts(8), max_new_tokens=1)]
    assert order.index("i0") >= 2
    assert sorted(order) == [f"i{n}" for n in range(8)]


def test_prompts_are_taken_only_when_there_is_room():
    taken, most = 0, 0

    def lazily():
        nonlocal taken
        for pair in prompts(60):
            taken += 1
            yield pair

    with fake_server() as fake, quick(fake, concurrency=3) as server:
        for done, _ in enumerate(server.replies(lazily(), max_new_tokens=1)):
            most = max(most, taken - done)
    assert (taken, most) == (60, 3)


def test_whoever_stops_taking_ends_what_is_under_way_at_once():
    with fake_server(script=lambda question, before: "stall" if question != "q0" else "ok") as fake:
        with quick(fake, timeout=60.0) as server:
            taking = server.replies(prompts(10), max_new_tokens=1)
            assert next(taking) == ("i0", "reply to q0")
            start = time.monotonic()
            while fake.asked.total() < 8 and time.monotonic() - start < 10:
                time.sleep(0.01)
            taking.close()
            while fake.hung_up < 7 and time.monotonic() - start < 10:
                time.sleep(0.01)
            assert (fake.asked.total(), fake.hung_up) == (8, 7)
            server.close()
            assert time.monotonic() - start < 10, "not the timeout of 60 s"
            with pytest.raises(UserError, match="were closed"):
                all_of(server, 1)
        assert not [thread for thread in threading.enumerate() if thread.name == "asking"]


def test_an_error_in_the_making_of_prompts_comes_after_what_is_under_way():
    def broken():
        yield from prompts(3)
        raise OSError("no such picture")

    with fake_server(delay=0.05) as fake, quick(fake) as server:
        got = []
        with pytest.raises(OSError, match="no such picture"):
            got.extend(server.replies(broken(), max_new_tokens=1))
        assert len(got) == 3 == fake.answered.total()


CHILD = """
import signal
import sys
from pathlib import Path
from eyechart.core.files import JsonLines
from eyechart.core.records import Prompt
from eyechart.models.servers import Server
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored in what it starts
url, log, count = sys.argv[1], JsonLines(Path(sys.argv[2]), key="id"), int(sys.argv[3])
with Server(url, concurrency=4, first_wait=0.01) as server:
    todo = ((f"i{n}", Prompt(text=f"q{n}")) for n in range(count) if f"i{n}" not in log)
    for key, reply in server.replies(todo, max_new_tokens=4):
        log.append({"id": key, "reply": reply})
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_killed_and_run_again_no_item_is_lost_and_none_that_was_logged_is_asked_again(end, tmp_path):
    path, count = tmp_path / "samples.jsonl", 60
    with fake_server(script=seeded(7, faults=0.3), delay=0.05) as fake:
        command = [sys.executable, "-c", CHILD, fake.base_url, str(path), str(count)]
        child = subprocess.Popen(command, stderr=subprocess.PIPE)
        while fake.answered.total() < 20 and child.poll() is None:
            time.sleep(0.005)
        child.send_signal(end)
        _, said = child.communicate(timeout=60)
        assert child.returncode in ((-end,) if end == signal.SIGKILL else (-end, 1, 130)), said
        logged = {
            json.loads(line)["id"] for line in path.read_text().splitlines(keepends=True) if line[-1] == "\n"
        }
        assert 10 < len(logged) < count
        before = fake.asked.copy()
        subprocess.run(command, check=True)
        again = {f"i{question[1:]}" for question in fake.asked - before}
    log = JsonLines(path, key="id")
    rows = [(row["id"], row["reply"]) for row in log]
    log.close()
    assert sorted(rows) == sorted((f"i{n}", f"reply to q{n}") for n in range(count))
    assert again.isdisjoint(logged)
    assert again == {f"i{n}" for n in range(count)} - logged
    twice = {question for question, times in fake.answered.items() if times > 1}
    assert len(twice) <= 4, "only what was under way at the kill"


# ---- parts


@given(tried=st.integers(0, 60), first=st.floats(0.001, 10), chance=st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_waits_double_have_jitter_and_a_ceiling(tried, first, chance):
    wait = wait_before(tried, first, rng=lambda: chance)
    whole = min(first * 2**tried, LONGEST_WAIT)
    assert whole / 2 <= wait <= whole


def test_retry_after_is_seconds_or_a_date():
    assert retry_after("7") == 7
    assert retry_after("-3") == 0
    assert retry_after("soon") is retry_after(None) is retry_after("nan") is retry_after("inf") is None
    then = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 30))
    assert 27 < retry_after(then) < 31
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0


@pytest.mark.parametrize(
    "options", [{"concurrency": 0}, {"retries": -1}, {"timeout": 0.0}, {"first_wait": 0.0}]
)
def test_arguments_that_make_no_sense(options):
    with pytest.raises(UserError, match="concurrency must be 1 or more"):
        Server("http://localhost", **options)


def test_importing_servers_loads_no_torch():
    code = "import sys; from eyechart.models.servers import Server; print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "False\n"
    )
