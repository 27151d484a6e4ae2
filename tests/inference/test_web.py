"""Pictures from a web server of this machine, and what may not be connected to."""

import contextlib
import http.server
import io
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvlib.errors import BadImageError, ConfigError
from mvlib.inference import web
from mvlib.inference.inputs import Url, WebRules, as_input, list_inputs
from mvlib.inference.web import Downloader, check_url, is_public

from ..cli.command import here as mvlib

LOCAL = WebRules(allow_local=True)


def png(seed=0, size=(64, 48)):
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1] // 8, size[0] // 8, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).resize(size).save(stream, "png")
    return stream.getvalue()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append(self.path)
        answer = self.server.answers.get(self.path)
        if callable(answer):
            answer(self)
        elif answer is None:
            self.send_error(404)
        else:
            status, headers, body = answer
            self.send_response(status)
            for key, value in {"Content-Length": str(len(body)), **headers}.items():
                if value is not None:
                    self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(host="127.0.0.1", context=None):
    server = http.server.ThreadingHTTPServer((host, 0), Handler)
    server.answers, server.asked, server.daemon_threads = {}, [], True
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    scheme = "http" if context is None else "https"
    server.url = lambda path, name=host: f"{scheme}://{name}:{server.server_port}{path}"
    server.moved = lambda path, place: server.answers.update({path: (302, {"Location": place}, b"")})
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def server():
    with serving() as server:
        server.answers["/0.png"] = 200, {"Content-Type": "image/png"}, png()
        yield server


@pytest.fixture
def quick(monkeypatch):
    """No pauses before a second try, short waits."""
    monkeypatch.setattr(web, "_PAUSES", (0, 0))
    monkeypatch.setattr(web, "_WAIT", 0.3)


def reason(url, rules=LOCAL):
    with pytest.raises(BadImageError) as caught:
        Downloader(rules).fetch(url)
    head, _, said = str(caught.value).partition(f"{url}: ")
    assert not head and "\n" not in said
    return said


def test_what_is_a_url():
    assert isinstance(as_input("https://a.org/x.jpg"), Url) and isinstance(as_input("HTTP://a.org"), Url)
    assert isinstance(as_input("folder/x.jpg"), Path) and isinstance(as_input("http:x.jpg"), Path)
    assert list(list_inputs(["https://a.org//x.jpg?a=1", "y.jpg"])) == ["https://a.org//x.jpg?a=1", Path("y.jpg")]


def test_a_picture_and_its_redirects(server):
    server.moved("/moved", "/again?x=1")
    server.moved("/again?x=1", server.url("/0.png"))
    found = Downloader(LOCAL).fetch(server.url("/moved"))
    assert found.read() == png() and found.name == server.url("/moved")
    server.answers["/a%20b.png?q=%C3%A9&r=[1]"] = 200, {}, png(1)
    assert Downloader(LOCAL).fetch(server.url("/a b.png?q=é&r=[1]#part")).read() == png(1)


def test_five_redirects_and_no_more(server):
    for number in range(6):
        server.moved(f"/{number}", f"/{number + 1}")
    server.answers["/6"] = 200, {}, png()
    assert Downloader(LOCAL).fetch(server.url("/1")).read() == png()
    assert reason(server.url("/0")) == "leads on by more than 5 redirects"
    server.moved("/file", "file:///etc/passwd")
    assert "pictures are read from http and https, not from file" in reason(server.url("/file"))
    server.moved("/secret", server.url("/0.png").replace("//", "//user:word@"))
    assert "word@" not in reason(server.url("/secret")) and "/0.png" not in server.asked


@pytest.mark.parametrize(("answer", "said"), [
    ((404, {}, b"<html>"), "the server answers 404 (Not Found)"),
    ((500, {}, b"\x1b[31m"), "the server answers 500 (Internal Server Error)"),
    ((200, {"Content-Type": "text/html; charset=utf-8"}, b"\n <!DOCTYPE html><p>"),
     "is a web page, not a picture: give the address of the picture itself"),
    ((200, {"Content-Type": "text/html"}, b"<p>"),
     "is a web page, not a picture: give the address of the picture itself"),
    ((200, {}, b'<?xml version="1.0"?>\n<svg xmlns="x">'), "is a drawing (SVG), which has no pixels"),
    ((200, {"Content-Encoding": "gzip"}, b"\x1f\x8b"), "is sent packed, as gzip, which it was not asked for"),
    ((200, {"Content-Length": "60000000"}, b""), "has 60.0 MB, more than the 50 MB of --max-download"),
    ((200, {"Content-Length": "100", "Connection": "close"}, b"x" * 10), "breaks off after 10 of 100 bytes"),
    ((302, {}, b""), "the server answers 302 (Found)"),
], ids=lambda value: str(value)[:30])
def test_what_is_no_picture(answer, said, server, quick):
    server.answers["/x"] = answer
    assert reason(server.url("/x")) == said


def test_the_limit_holds_where_no_length_is_said(server):
    def endless(handler):
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(OSError):
            while True:
                handler.wfile.write(b"x" * 10_000)

    server.answers["/endless"] = endless
    assert reason(server.url("/endless"), WebRules(1_000_000, True)) == "has more than the 1 MB of --max-download"


def test_a_busy_server_is_asked_again(server, quick):
    answers = [(503, {}, b""), (429, {}, b""), (200, {}, png())]
    server.answers["/busy"] = lambda handler: server.answers.update({"/once": answers.pop(0)}) or \
        setattr(handler, "path", "/once") or handler.do_GET()
    assert Downloader(LOCAL).fetch(server.url("/busy")).read() == png()
    server.answers["/gone"] = 503, {}, b""
    assert reason(server.url("/gone")) == "the server answers 503 (Service Unavailable)"
    assert server.asked.count("/gone") == 3


def test_waits_end(server, quick, monkeypatch):
    def drip(handler):
        with contextlib.suppress(OSError):
            handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
            for _ in range(600):
                handler.wfile.write(b"X")
                time.sleep(0.05)

    server.answers.update({"/silent": lambda handler: time.sleep(1), "/drip": drip})
    assert reason(server.url("/silent")) == "the server does not answer for 0 s"
    monkeypatch.setattr(web, "_TOTAL", 0.5)
    assert reason(server.url("/drip")) == "is not there after 0 s"
    monkeypatch.setattr(web, "_TOTAL", 100)
    downloader = Downloader(LOCAL)
    threading.Timer(0.3, downloader.close).start()
    started = time.monotonic()
    with pytest.raises(BadImageError):  # a run that ends does not wait for what is under way
        downloader.fetch(server.url("/drip"))
    assert time.monotonic() - started < 20  # of 30 that it would drip
    with pytest.raises(BadImageError, match="interrupted"):
        downloader.fetch(server.url("/0.png"))


def test_nobody_there(quick):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{sock.getsockname()[1]}"
        assert reason(f"http://{place}/x") == "the host 127.0.0.1 takes no connection"
    assert "the host nowhere.invalid is not found" in reason("http://nowhere.invalid/x.png")


# what may be connected to

@pytest.mark.parametrize("address", [
    "127.0.0.1", "127.8.9.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "224.0.0.1", "255.255.255.255", "::", "::1", "fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1", "::ffff:127.0.0.1",
    "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "2002:7f00:1::", "2002:c0a8:101::1",
    "2001:0:4136:e378:8000:63bf:80ff:fffe",  # Teredo, of 127.0.0.1
])
def test_local_addresses(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "151.101.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses(address):
    assert is_public(address)


@pytest.mark.parametrize("host", [
    "127.0.0.1", "localhost", "2130706433", "0177.0.0.1", "0x7f000001", "127.1", "0", "[::1]", "[::ffff:127.0.0.1]",
    "①②⑦.0.0.1", "127.0.0.1.", "LOCALHOST",
])
def test_this_machine_is_refused_in_every_form(host, server, quick):
    said = reason(server.url("/0.png", host), WebRules())
    assert said.endswith("an address of this machine or of a private network, which is connected to with "
                         "--allow-local-urls alone") or "is not found" in said or "is no name of one" in said
    assert not server.asked


def test_a_redirect_to_this_machine_is_refused(server, monkeypatch):
    monkeypatch.setattr(web, "is_public", lambda address: address == "127.0.0.1")  # it stands for the internet
    server.moved("/moved", server.url("/0.png", "127.0.0.2"))
    assert "leads to 127.0.0.2, an address of this machine" in reason(server.url("/moved"), WebRules())
    assert server.asked == ["/moved"]
    assert Downloader(WebRules()).fetch(server.url("/0.png")).read() == png()


def test_a_name_is_resolved_once_and_what_was_checked_is_connected_to(server, monkeypatch):
    """A name server that answers with a public address first and a local one then ("rebinding") gains nothing."""
    answers, connected = [["127.0.0.1"], ["127.0.0.2"]], []
    entry = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, port, *_, **__: [
        (*entry, (address, port)) for address in answers.pop(0)])
    monkeypatch.setattr(web, "is_public", lambda address: address == "127.0.0.1")
    connect = socket.socket.connect
    monkeypatch.setattr(web.socket.socket, "connect", lambda self, address: connected.append(address[0]) or connect(
        self, address), raising=False)
    assert Downloader(WebRules()).fetch(server.url("/0.png", "two-faced.test")).read() == png()
    assert connected == ["127.0.0.1"] and answers == [["127.0.0.2"]]
    assert "leads to two-faced.test (127.0.0.2)" in reason(server.url("/0.png", "two-faced.test"), WebRules())
    answers[:] = [["127.0.0.2", "127.0.0.1"]]  # of several addresses, the public ones count
    assert Downloader(WebRules()).fetch(server.url("/0.png", "both.test")).read() == png()
    assert "127.0.0.2" not in connected


def test_proxies(server, quick, monkeypatch):
    """A proxy may be local: the user has set it. What it is asked for may not."""
    monkeypatch.setenv("http_proxy", f"http://user:p%40ss@127.0.0.1:{server.server_port}")
    monkeypatch.delenv("no_proxy", raising=False)
    seen = []

    def answer(handler):
        seen.append(handler.headers["Proxy-Authorization"])
        handler.path = "/0.png"
        handler.do_GET()

    server.answers["http://pictures.invalid/x.png"] = answer
    assert Downloader(WebRules()).fetch("http://pictures.invalid/x.png").read() == png()
    assert seen == ["Basic dXNlcjpwQHNz"]
    assert "leads to 169.254.169.254" in reason("http://169.254.169.254/latest", WebRules())
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1")
    assert reason("http://pictures.invalid/x.png") == "the proxy is of a kind that is not known here: socks5"


@pytest.mark.parametrize(("url", "said"), [
    ("ftp://a.org/x", "pictures are read from http and https, not from ftp"),
    ("file:///x.jpg", "not from file (give a file by its path)"),
    ("http:///x", "is no URL: it names no host"), ("http://a:0/x", "is no URL: it names no port"),
    ("http://a:99999/x", "is no URL: Port out of range"), ("http://[::1/x", "is no URL: Invalid IPv6 URL"),
    ("https://me:secret@a.org/x", "https://a.org/x: was given with a name or password, which are not sent"),
])
def test_what_cannot_be_fetched_is_said_before_anything_is_loaded(url, said):
    with pytest.raises(ConfigError) as caught:
        check_url(url)
    assert said in str(caught.value) and "secret" not in str(caught.value)
    done = mvlib("predict", url, "--model", "no_such_file.ov")
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-addext",
                    "subjectAltName=DNS:localhost", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
                   check=True, capture_output=True)
    return folder


def test_https(certificate, quick, monkeypatch):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    with serving(context=context) as server:
        server.answers["/0.png"] = 200, {}, png()
        assert "the certificate of localhost is not valid: self" in reason(server.url("/0.png", "localhost"))
        trusting = ssl.create_default_context(cafile=certificate / "cert.pem")
        monkeypatch.setattr(web, "_tls", lambda: trusting)
        assert Downloader(LOCAL).fetch(server.url("/0.png", "localhost")).read() == png()
        assert "the certificate of 127.0.0.1 is not valid: " in reason(server.url("/0.png"))
        with tunnel() as proxy:
            monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
            monkeypatch.setenv("no_proxy", "")
            assert Downloader(LOCAL).fetch(server.url("/0.png", "localhost")).read() == png()
            assert proxy.asked == [f"CONNECT localhost:{server.server_port} HTTP/1.1"]


@contextlib.contextmanager
def tunnel():
    """A proxy that passes one connection on."""
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def serve():
        with contextlib.suppress(OSError):
            sock, _ = listener.accept()
            text = sock.recv(65536).decode()
            proxy.asked.append(text.splitlines()[0])
            host, port = text.split()[1].split(":")
            other = socket.create_connection((host, int(port)))
            sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            threading.Thread(target=pump, args=(other, sock), daemon=True).start()
            pump(sock, other)

    proxy = type("Proxy", (), {"port": listener.getsockname()[1], "asked": []})
    threading.Thread(target=serve, daemon=True).start()
    with listener:
        yield proxy


# as a user meets it

def test_commands_read_urls(server, exports, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(4):
        server.answers[f"/{number}.png?size=1"] = 200, {}, png(number)
        Path(f"{number}.png").write_bytes(png(number))
    before = sorted(tmp_path.iterdir())
    urls = [server.url(f"/{number}.png?size=1") for number in range(4)]
    model = "--model", exports / "classifier.ov", "--allow-local-urls"
    done = mvlib("predict", *model, "--format", "jsonl", urls[0], "1.png", "-", server.url("/none"),
                 stdin=f"{urls[2]}\n{urls[3]}\n")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"mvlib: not read: {server.url('/none')}: the server answers 404 (Not Found)",
                                        "mvlib: 1 of 5 images could not be read"]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["file"] for record in found] == [urls[0], "1.png", urls[2], urls[3]]
    local = [json.loads(line)["predictions"] for line in mvlib(
        "predict", *model, "--format", "jsonl", *(f"{number}.png" for number in range(4))).stdout.splitlines()]
    assert [record["predictions"] for record in found] == local
    assert sorted(tmp_path.iterdir()) == before

    done = mvlib("predict", "--model", exports / "classifier.ov", urls[0])
    assert done.returncode == 1 and "leads to 127.0.0.1, an address of this machine" in done.stderr


def test_a_folder_of_results_goes_on_with_urls(server, exports, tmp_path):
    for number in range(4):
        server.answers[f"/a//{number}.png"] = 200, {}, png(number)
    (tmp_path / "list.txt").write_text("".join(f"{server.url(f'/a//{number}.png')}\n" for number in range(4)))
    command = ("embed", "--files-from", tmp_path / "list.txt", "--model", exports / "pooled.ov", "--allow-local-urls",
               "--output", f"{tmp_path}/parts/", "--shard-size", 2)
    pytest.importorskip("pyarrow")
    assert mvlib(*command).returncode == 0
    (tmp_path / "parts" / "part-00001.parquet").unlink()
    server.asked.clear()
    assert mvlib(*command).returncode == 0
    assert sorted(server.asked) == ["/a//2.png", "/a//3.png"]
    assert mvlib("merge", tmp_path / "parts", "--output", tmp_path / "all.npy").returncode == 0
    assert json.loads((tmp_path / "all.json").read_text())[3] == server.url("/a//3.png")


def test_a_sheet_draws_what_was_fetched_once(server, exports, tmp_path):
    server.answers["/0.png?a/b"] = 200, {}, png(size=(240, 180))
    done = mvlib("predict", server.url("/0.png?a/b"), "--model", exports / "classifier.ov", "--allow-local-urls",
                 "--sheet", tmp_path / "sheet.png")
    assert done.returncode == 0 and server.asked == ["/0.png?a/b"]
    drawn = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))[18:198, 18:258]
    assert np.array_equal(drawn, np.asarray(Image.open(io.BytesIO(png(size=(240, 180))))))


def test_downloads_are_parallel(server, exports):
    """Four that each wait until all four are asked for."""
    together = threading.Barrier(4, timeout=30)

    def answer(handler):
        together.wait()
        handler.path = "/0.png"
        handler.do_GET()

    server.answers.update({f"/{number}": answer for number in range(4)})
    done = mvlib("predict", *(server.url(f"/{number}") for number in range(4)), "--model", exports / "classifier.ov",
                 "--allow-local-urls", "--workers", 4, "--batch-size", 4)
    assert done.returncode == 0, done.stderr
