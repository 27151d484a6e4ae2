"""examples/serve.py and load_test.py: what is refused and how, batches, and real requests over loopback."""

import asyncio
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import numpy as np
import pytest
from PIL import Image

from .conftest import EXAMPLES

# torch cannot be imported in this server
SERVE = f"import sys, runpy; sys.modules['torch'] = None; runpy.run_path({str(EXAMPLES / 'serve.py')!r}, " \
        "run_name='__main__')"


@pytest.fixture
def session(exports):
    from mvlib.inference import Settings, open_session

    return open_session(Settings(model=str(exports / "classifier.ov"), batch_size=4))


def picture(color: str = "red") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (60, 40), color).save(stream, "PNG")
    return stream.getvalue()


def ask(app, *bodies: bytes, path: str = "/predict") -> list[httpx.Response]:
    """Requests that come at once, in this process."""
    async def requests():
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        client = httpx.AsyncClient(transport=transport, base_url="http://test")
        async with app.router.lifespan_context(app), client as http:
            return await asyncio.gather(*(http.post(path, content=body) for body in bodies))

    return asyncio.run(asyncio.wait_for(requests(), 60))


def test_bad_requests_are_refused_with_the_reason(example, session):
    app = example("serve").create_app(session, max_mib=0.01)
    noise = io.BytesIO()
    Image.fromarray(np.random.RandomState(0).randint(0, 255, (99, 99, 3), np.uint8)).save(noise, "PNG")
    found = ask(app, b"no picture", b"", picture()[:60], noise.getvalue(), picture())
    assert [response.status_code for response in found] == [400, 400, 400, 413, 200]
    details = [response.json()["detail"] for response in found[:4]]
    assert details[0] == "not an image in a format that PIL reads"
    assert details[1] == "file is empty"
    assert details[3] == "the picture has more than 0.01 MiB"
    app = example("serve").create_app(session)
    assert ask(app, picture(), path="/predict?topk=0")[0].status_code == 422


def test_a_small_file_of_many_pixels_is_refused(example, session, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    response, = ask(example("serve").create_app(session), picture())
    assert (response.status_code, response.json()["detail"].partition(":")[0]) == (400, "too many pixels")


def test_what_comes_together_goes_through_the_model_together(example, session, monkeypatch):
    from mvlib.inference import classify

    colors = ("red", "green", "blue", "white", "black", "gray", "pink")
    alone = [classify(session, 7)(session.read(picture(color))[None])[0] for color in colors]
    serve, sizes, gate = example("serve"), [], threading.Event()

    def slow(session, topk):
        compute = classify(session, topk)

        def wait_and_compute(images):
            sizes.append(len(images))
            gate.wait(0.5)
            return compute(images)

        return wait_and_compute

    monkeypatch.setattr(serve, "classify", slow)
    session.lanes = 1
    found = ask(serve.create_app(session), *map(picture, colors), path="/predict?topk=7")
    assert sum(sizes) == 7 and max(sizes) > 1
    for response, expected in zip(found, alone):
        rows = response.json()["predictions"]
        assert [row["index"] for row in rows] == [index for index, _, _ in expected]
        assert np.allclose([row["probability"] for row in rows], [value for _, _, value in expected], atol=1e-5)


def test_too_many_at_once_are_told_to_come_again_and_an_error_reaches_who_asked(example, session, monkeypatch):
    serve = example("serve")
    found = ask(serve.create_app(session, at_once=2), *[picture()] * 5)
    assert sorted(response.status_code for response in found) == [200, 200, 503, 503, 503]
    assert next(response for response in found if response.status_code == 503).headers["retry-after"] == "1"

    def broken(session, topk):
        def compute(images):
            if images.mean() > 200:
                raise RuntimeError("the engine fails")
            return [[(0, "kind 0", 1.0)]] * len(images)

        return compute

    monkeypatch.setattr(serve, "classify", broken)
    session.batch_size = session.lanes = 1
    found = ask(serve.create_app(session), *map(picture, ("white", "black", "white", "black")))
    assert [response.status_code for response in found] == [500, 200, 500, 200]  # the lane goes on


def test_who_sends_slowly_keeps_nobody_waiting(example, session):
    app, gone = example("serve").create_app(session, at_once=1, seconds=0.5), []

    async def requests():
        finished = asyncio.Event()

        async def slow():
            yield picture()[:3]
            await finished.wait()

        async def leave():  # in the middle of the picture
            return parts.pop(0)

        async def send(message):
            gone.append(message)

        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")
        async with app.router.lifespan_context(app), client as http:
            waiting = [asyncio.create_task(http.post("/predict", content=slow())) for _ in range(3)]
            await asyncio.sleep(0.1)
            quick = await http.post("/predict", content=picture())
            slowly = [await task for task in waiting]
            parts = [{"type": "http.request", "body": b"\x89PN", "more_body": True}, {"type": "http.disconnect"}]
            await app({"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": [],
                       "http_version": "1.1", "scheme": "http"}, leave, send)  # raises nothing
            return quick, slowly

    quick, slowly = asyncio.run(asyncio.wait_for(requests(), 60))
    assert quick.status_code == 200
    assert [response.status_code for response in slowly] == [408] * 3
    assert slowly[0].json()["detail"] == "not sent within 0.5 seconds"
    assert gone[0]["status"] == 400


def test_over_loopback_answers_are_those_of_predict(example, exports, tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url, export = f"http://127.0.0.1:{port}", str(exports / "classifier.ov")
    pictures = [str(exports / f"{number}.png") for number in (0, 1, 3)]
    load_test = example("load_test")
    server = subprocess.Popen([sys.executable, "-c", SERVE, export, "--port", str(port)],
                              env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        with pytest.raises(OSError, match=f"^{url}: "):
            load_test.main([export, *pictures, "--url", url])  # it is not there yet
        while not is_up(url):
            assert server.poll() is None
            time.sleep(0.1)
        found = load_test.main([export, *pictures, "--url", url, "--clients", "4", "--requests", "24"])
        assert found == {"same": 3, "answers": 3, "requests": 24, "refused": 0}
        health = httpx.get(f"{url}/health", trust_env=False).json()
        assert (health["status"], health["model"], health["pictures"]) == ("ok", "test_resnet", 24)
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)


def is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
