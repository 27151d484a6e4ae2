"""A hub on this machine: a threaded HTTP server that the real huggingface_hub client downloads from and uploads to.

    with HubServer() as hub:
        hub.add_repo("timm/resnet18.a1_in1k", {"config.json": b"{}", "model.safetensors": data})
        hub.add_file("/tv/resnet18-f37072fd.pth", data)      # a plain file, at hub.url("/tv/resnet18-f37072fd.pth")
        hub.fault("*/model.safetensors", cut_after=1000)     # the first GET of it breaks off after 1000 bytes

It speaks as much of the hub's protocol as a client needs that has Xet switched off (HF_HUB_DISABLE_XET): resolving,
repository information, creating, pre-upload, LFS upload and commit.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LARGE = (".safetensors", ".bin", ".pth", ".pt")  # what the hub keeps as LFS objects


@dataclass
class Repo:
    """A repository: files by commit, and commits by branch or tag."""

    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Mapping[str, bytes], revision: str) -> str:
        digest = hashlib.sha1(repr((len(self.commits), sorted(files.items()))).encode()).hexdigest()
        self.commits[digest] = dict(files)
        self.refs[revision] = digest
        return digest

    def find(self, revision: str) -> str | None:
        return self.refs.get(revision, revision if revision in self.commits else None)


@dataclass
class Fault:
    """What goes wrong with requests whose path matches a pattern, and how often (None: always)."""

    pattern: str
    status: int | None = None
    cut_after: int | None = None
    reset: bool = True
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    times: int | None = None


class HubServer:
    """The server. `requests` counts all requests by path, `downloads` the GETs alone.

    Attributes:
        repos: What is served, by "owner/name"; uploads arrive here.
        requests: Requests of any method, by path (without the query).
        downloads: GET requests, by path.
        ranges: Range headers that were sent, by path.
        delay: Seconds to wait before a file is sent.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.files: dict[str, bytes] = {}
        self.requests: Counter[str] = Counter()
        self.downloads: Counter[str] = Counter()
        self.ranges: dict[str, list[str]] = {}
        self.uploads: dict[str, bytes] = {}  # LFS objects by sha256
        self.faults: list[Fault] = []
        self.delay = 0.0  # seconds before a file's bytes are sent
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.hub = self
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """The hub goes down: connections are refused from now on."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    def url(self, path: str) -> str:
        return self.endpoint + path

    def add_repo(self, repo_id: str, files: Mapping[str, bytes] | str | Path, *, revision: str = "main",
                 gated: bool = False) -> str:
        """Serve files (a dict, or a folder's) as a revision of a repository. Returns the commit's hash."""
        if not isinstance(files, Mapping):
            folder = Path(files)
            files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        repo = self.repos.setdefault(repo_id, Repo())
        repo.gated = gated
        return repo.commit(files, revision)

    def add_file(self, path: str, data: bytes) -> str:
        """Serve a file under a path. Returns its URL."""
        self.files[path] = data
        return self.url(path)

    def fault(self, pattern: str, *, status: int | None = None, cut_after: int | None = None,
              reset: bool = True, content: bytes | None = None, headers: Mapping[str, str] | None = None,
              times: int | None = 1) -> None:
        """Let requests to paths like `pattern` (fnmatch) fail: by status (any method), by a connection that is reset
        (or closed in order) after so many bytes, or by wrong content (GET alone); `times=None` is always."""
        self.faults.append(Fault(pattern, status, cut_after, reset, content, headers or {}, times))

    def take_fault(self, path: str, method: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                applies = fault.times != 0 and fnmatch.fnmatchcase(path, fault.pattern)
                if applies and (fault.status is not None or method == "GET"):
                    fault.times = None if fault.times is None else fault.times - 1
                    return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> HubServer:
        return self.server.hub

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def end_headers(self) -> None:
        self.send_header("Connection", "close")  # one that is kept alive would outlive stop()
        super().end_headers()

    def do_HEAD(self) -> None:
        self._answer()

    do_GET = do_POST = do_PUT = do_HEAD

    def _answer(self) -> None:
        self.path_only = unquote(urlsplit(self.path).path)
        self.body = self._read_body()
        with self.hub.lock:
            self.hub.requests[self.path_only] += 1
            if self.command == "GET":
                self.hub.downloads[self.path_only] += 1
            if "Range" in self.headers:
                self.hub.ranges.setdefault(self.path_only, []).append(self.headers["Range"])
        self.fault = self.hub.take_fault(self.path_only, self.command)
        if self.fault is not None and self.fault.status is not None:
            self._send(self.fault.status, b"injected", self.fault.headers)
        elif self.path_only in self.hub.files:
            self._send_file(self.hub.files[self.path_only], {})
        else:
            for methods, pattern, answer in _ROUTES:
                # Revisions may hold an encoded slash (refs%2Fpr%2F1), so the raw path is matched.
                match = re.fullmatch(pattern, urlsplit(self.path).path)
                if match and self.command in methods:
                    answer(self, *map(unquote, match.groups()))
                    return
            self._send(404, b"no such path")

    def _read_body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send_json(self, data: object, status: int = 200) -> None:
        self._send(status, json.dumps(data).encode(), {"Content-Type": "application/json"})

    def _send_error(self, status: int, code: str, **headers: str) -> None:
        self._send(status, code.encode(), {"X-Error-Code": code, "X-Error-Message": code,
                                           **{k.replace("_", "-"): v for k, v in headers.items()}})

    def _send_file(self, data: bytes, headers: dict[str, str]) -> None:
        fault = self.fault
        if self.command == "GET":
            time.sleep(self.hub.delay)
        if fault is not None and fault.content is not None:
            data = fault.content
        status, start = 200, 0
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted:
            start = int(wanted[1])
            if start >= len(data):
                self._send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
                return
            status = 206
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if fault is None or fault.cut_after is None:
            self._send(status, data[start:], {"Accept-Ranges": "bytes", **headers})
            return
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data) - start), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[start:start + fault.cut_after])
        self.wfile.flush()
        self.close_connection = True
        if fault.reset:
            time.sleep(0.05)  # a reset discards what the client has not read yet
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.rfile.close()
            self.connection.close()

    # downloads

    def _repo(self, repo_id: str) -> Repo | None:
        """The repository, or None after an answer that says why not."""
        repo = self.hub.repos.get(repo_id)
        if repo is None:
            self._send_error(404, "RepoNotFound")
        elif repo.gated:
            self._send_error(403 if "Authorization" in self.headers else 401, "GatedRepo")
        else:
            return repo
        return None

    def _resolve(self, repo_id: str, revision: str, filename: str) -> None:
        repo = self._repo(repo_id)
        if repo is None:
            return
        commit = repo.find(revision)
        if commit is None:
            self._send_error(404, "RevisionNotFound")
            return
        data = repo.commits[commit].get(filename)
        if data is None:
            self._send_error(404, "EntryNotFound", X_Repo_Commit=commit)
            return
        headers = {"X-Repo-Commit": commit}
        if filename.endswith(_LARGE):
            headers["ETag"] = headers["X-Linked-Etag"] = f'"{hashlib.sha256(data).hexdigest()}"'
            headers["X-Linked-Size"] = str(len(data))
        else:
            headers["ETag"] = f'"{_git_hash(data)}"'
        self._send_file(data, headers)

    def _model_info(self, repo_id: str, revision: str = "main") -> None:
        repo = self._repo(repo_id)
        if repo is None:
            return
        commit = repo.find(revision)
        if commit is None:
            self._send_error(404, "RevisionNotFound")
            return
        files = [{"rfilename": name} for name in repo.commits[commit]]
        self._send_json({"id": repo_id, "modelId": repo_id, "sha": commit, "siblings": files, "private": False,
                         "gated": repo.gated, "tags": [], "downloads": 0, "likes": 0})

    def _tree(self, repo_id: str, revision: str) -> None:
        repo = self._repo(repo_id)
        commit = repo.find(revision) if repo is not None else None
        if commit is not None:
            self._send_json([
                {"type": "file", "path": name, "size": len(data), "oid": _git_hash(data),
                 **({"lfs": {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}}
                    if name.endswith(_LARGE) else {})} for name, data in repo.commits[commit].items()])
        elif repo is not None:
            self._send_error(404, "RevisionNotFound")

    # uploads

    def _may_write(self) -> bool:
        allowed = self.headers.get("Authorization", "").startswith("Bearer ")
        if not allowed:
            self._send(401, b"{}", {"X-Error-Message": "Invalid credentials in Authorization header"})
        return allowed

    def _create_repo(self) -> None:
        if self._may_write():
            request = json.loads(self.body)
            repo_id = "/".join(filter(None, (request.get("organization"), request["name"])))
            known = repo_id in self.hub.repos
            if not known:
                self.hub.add_repo(repo_id, {})
            self._send_json({"url": self.hub.url(f"/{repo_id}"), "name": repo_id}, 409 if known else 200)

    def _validate_yaml(self) -> None:
        self._send_json({"errors": [], "warnings": []})

    def _preupload(self, repo_id: str, revision: str) -> None:
        repo = self._repo(repo_id) if self._may_write() else None
        if repo is not None:
            self._send_json({"files": [
                {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(_LARGE) else "regular",
                 "shouldIgnore": False} for f in json.loads(self.body)["files"]]})

    def _lfs_batch(self, repo_id: str) -> None:
        if self._may_write():
            objects = [{"oid": o["oid"], "size": o["size"],
                        "actions": {"upload": {"href": self.hub.url(f"/lfs/{o['oid']}")}}}
                       for o in json.loads(self.body)["objects"]]
            self._send_json({"transfer": "basic", "objects": objects})

    def _lfs_put(self, oid: str) -> None:
        matches = hashlib.sha256(self.body).hexdigest() == oid
        if matches:
            self.hub.uploads[oid] = self.body
        self._send(200 if matches else 400, b"")

    def _commit(self, repo_id: str, revision: str) -> None:
        repo = self._repo(repo_id) if self._may_write() else None
        if repo is None:
            return
        commit = repo.find(revision)
        if commit is None:
            self._send_error(404, "RevisionNotFound")
            return
        files = dict(repo.commits[commit])
        for line in self.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.hub.uploads[value["oid"]]
        as_pull_request = "create_pr=1" in urlsplit(self.path).query
        digest = repo.commit(files, "refs/pr/1" if as_pull_request else revision)
        self._send_json({"commitUrl": self.hub.url(f"/{repo_id}/commit/{digest}"), "commitOid": digest,
                         "pullRequestUrl": self.hub.url(f"/{repo_id}/discussions/1") if as_pull_request else None})

    def _create_branch(self, repo_id: str, branch: str) -> None:
        repo = self._repo(repo_id) if self._may_write() else None
        if repo is not None:
            known = branch in repo.refs
            repo.refs.setdefault(branch, repo.refs["main"])
            self._send_json({}, 409 if known else 200)


def _git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


_REPO = r"([^/]+/[^/]+)"
_ROUTES = (
    (("HEAD", "GET"), rf"/{_REPO}/resolve/([^/]+)/(.+)", _Handler._resolve),
    (("GET",), rf"/api/models/{_REPO}", _Handler._model_info),
    (("GET",), rf"/api/models/{_REPO}/revision/([^/]+)", _Handler._model_info),
    (("GET",), rf"/api/models/{_REPO}/tree/([^/]+)", _Handler._tree),
    (("POST",), r"/api/repos/create", _Handler._create_repo),
    (("POST",), r"/api/validate-yaml", _Handler._validate_yaml),
    (("POST",), rf"/api/models/{_REPO}/preupload/([^/]+)", _Handler._preupload),
    (("POST",), rf"/{_REPO}\.git/info/lfs/objects/batch", _Handler._lfs_batch),
    (("PUT",), r"/lfs/([0-9a-f]{64})", _Handler._lfs_put),
    (("POST",), rf"/api/models/{_REPO}/commit/([^/]+)", _Handler._commit),
    (("POST",), rf"/api/models/{_REPO}/branch/([^/]+)", _Handler._create_branch),
)
