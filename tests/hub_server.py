"""A small Hugging Face hub on this machine, for the real `huggingface_hub` client, with faults on demand.

    with HubServer() as hub:
        hub.add_repo("timm/resnet18.a1_in1k", {"config.json": b"...", "model.safetensors": b"..."})
        hub.add_file("/models/resnet18-0123abcd.pth", b"...")     # a plain file: hub.url("/models/...")
        hub.cut("/models/", after=1000, times=1)                  # the connection breaks off once
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
import urllib.parse
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
_COMMIT = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/commit/(?P<revision>[^/]+)")


@dataclass
class Fault:
    """What goes wrong with requests whose path contains `part`, the next `times` times."""

    part: str
    times: int
    status: int | None = None
    after: int | None = None
    content: bytes | None = None


@dataclass
class Repo:
    """Files by revision; a revision's commit follows from its files."""

    revisions: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: bool = False

    def find(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        for name, files in self.revisions.items():
            commit = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
            if revision in (name, commit):
                return commit, files
        return None


class HubServer:
    """See the module's docstring. `requests` counts what was asked for, by path."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.files: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: dict[str, int] = {}
        self.delay = 0.0
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """The hub goes down; connections are refused from now on."""
        self.server.shutdown()
        self.server.server_close()

    def url(self, path: str) -> str:
        return self.endpoint + path

    def add_repo(
        self, repo_id: str, files: dict[str, bytes], revision: str = "main", gated: bool = False
    ) -> None:
        repo = self.repos.setdefault(repo_id, Repo())
        repo.revisions[revision] = dict(files)
        repo.gated = gated

    def add_file(self, path: str, content: bytes) -> None:
        self.files[path] = content

    def fail(self, part: str, status: int, times: int = 1000) -> None:
        """Answer with an HTTP error."""
        self.faults.append(Fault(part, times, status=status))

    def cut(self, part: str, after: int, times: int = 1) -> None:
        """Break the connection after some bytes of the body."""
        self.faults.append(Fault(part, times, after=after))

    def corrupt(self, part: str, content: bytes, times: int = 1000) -> None:
        """Send other bytes than those that headers announce."""
        self.faults.append(Fault(part, times, content=content))

    def count(self, part: str = "") -> int:
        """How often paths that contain `part` were asked for."""
        return sum(n for path, n in self.requests.items() if part in path)


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._get(with_body=False)

    def do_GET(self) -> None:
        self._get(with_body=True)

    def _fault(self, path: str, with_body: bool) -> Fault | None:
        with self.hub.lock:
            self.hub.requests[f"{self.command} {path}"] = self.hub.requests.get(f"{self.command} {path}", 0) + 1
            for fault in self.hub.faults:
                if fault.part in path and fault.times > 0 and (with_body or fault.status is not None):
                    fault.times -= 1
                    return fault
        return None

    def _get(self, with_body: bool) -> None:
        path = urllib.parse.unquote(self.path.partition("?")[0])
        fault = self._fault(path, with_body)
        if fault is not None and fault.status is not None:
            return self._refuse(fault.status)
        resolved = _RESOLVE.fullmatch(path)
        headers = {}
        if resolved:
            repo = self.hub.repos.get(resolved["repo"])
            if repo is None:
                return self._refuse(404, "RepoNotFound")
            if repo.gated and not self.headers.get("Authorization"):
                return self._refuse(401, "GatedRepo")
            found = repo.find(resolved["revision"])
            if found is None:
                return self._refuse(404, "RevisionNotFound")
            commit, files = found
            headers["X-Repo-Commit"] = commit
            content = files.get(resolved["path"])
            if content is None:
                return self._refuse(404, "EntryNotFound", **headers)
            headers["ETag"] = f'"{hashlib.sha256(content).hexdigest()}"'
        else:
            content = self.hub.files.get(path)
            if content is None:
                return self._refuse(404)
        return self._send(content, headers, fault, with_body)

    def _send(self, content: bytes, headers: dict[str, str], fault: Fault | None, with_body: bool) -> None:
        length = len(content)
        if fault is not None and fault.content is not None:
            content = fault.content
            length = len(content)
        start = 0
        requested = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if requested and int(requested[1]) >= length:
            return self._refuse(416)
        if requested:
            start = int(requested[1])
            headers["Content-Range"] = f"bytes {start}-{length - 1}/{length}"
        self.send_response(206 if requested else 200)
        for name, value in {**headers, "Content-Length": str(length - start), "Accept-Ranges": "bytes"}.items():
            self.send_header(name, value)
        self.end_headers()
        if not with_body:
            return None
        body = content[start:]
        if self.hub.delay:
            threading.Event().wait(self.hub.delay)
        if fault is not None and fault.after is not None:
            self.wfile.write(body[:fault.after])
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # reset, not close
            self.close_connection = True
            self.connection.close()
            return None
        self.wfile.write(body)
        return None

    def _refuse(self, status: int, code: str | None = None, **headers: str) -> None:
        body = json.dumps({"error": code or f"status {status}"}).encode()
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    # uploads

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urllib.parse.unquote(self.path.partition("?")[0])
        fault = self._fault(path, True)
        if fault is not None and fault.status is not None:
            return self._refuse(fault.status)
        if path == "/api/repos/create":
            if not self.headers.get("Authorization"):
                return self._refuse(401)
            data = json.loads(body)
            repo_id = f"{data.get('organization') or 'me'}/{data['name']}"
            self.hub.repos.setdefault(repo_id, Repo({"main": {}}))
            return self._json({"url": f"{self.hub.endpoint}/{repo_id}", "name": repo_id})
        if path == "/api/validate-yaml":
            return self._json({"warnings": [], "errors": []})
        if "/preupload/" in path:
            files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                     for f in json.loads(body)["files"]]
            return self._json({"files": files})
        commit = _COMMIT.fullmatch(path)
        if commit:
            lines = [json.loads(line) for line in body.splitlines() if line]
            files = self.hub.repos[commit["repo"]].revisions.setdefault(commit["revision"], {})
            for line in lines:
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            oid = self.hub.repos[commit["repo"]].find(commit["revision"])[0]
            return self._json({"success": True, "commitOid": oid,
                               "commitUrl": f"{self.hub.endpoint}/{commit['repo']}/commit/{oid}", "hookOutput": ""})
        return self._refuse(404)

    def _json(self, data: dict) -> None:
        body = json.dumps(data).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
