"""Pictures from the web, into memory. Imports no torch.

A list of URLs may come from anybody, so a URL may not lead into the network that this machine stands in: the address
that is connected to is looked at, whatever form or name it was written in, and whichever redirect led there.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from functools import lru_cache
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from ..errors import BadImageError, ConfigError
from .inputs import WebRules

__all__ = ["Downloader", "check_url", "is_public"]

_REDIRECTS = 5
_WAIT, _TOTAL = 10.0, 120.0  # seconds: for a connection and for each next piece of an answer; for all of a picture
_PAUSES = (0.5, 2.0)  # seconds before a picture is asked for again
_MOVED, _BUSY = (301, 302, 303, 307, 308), (429, 502, 503, 504)
_PIECE = 1 << 16
_Entry = tuple[Any, ...]  # of socket.getaddrinfo
_PORTS = {"http": 80, "https": 443}
_SAFE = "%/:=&?~+!$,;'@()*[]|"  # what stays as it is in a path or query


class _Refused(Exception):
    """A reason, in words for the user."""


class _Passing(_Refused):
    """A reason that may be gone a moment later."""


def check_url(url: str) -> SplitResult:
    """The parts of a URL that can be fetched.

    Raises:
        ConfigError: It is of another scheme than http and https, names no host, has an impossible port, or a password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{url}: is no URL: {error}") from None
    if parts.scheme not in _PORTS:
        raise ConfigError(f"{url}: pictures are read from http and https, not from {parts.scheme}"
                          f"{' (give a file by its path)' if parts.scheme == 'file' else ''}")
    if not parts.hostname or port == 0:
        raise ConfigError(f"{url}: is no URL: it names no {'port' if parts.hostname else 'host'}")
    if parts.username is not None:
        raise ConfigError(f"{url.replace(parts.netloc, parts.netloc.rpartition('@')[2])}: was given with a name or "
                          f"password, which are not sent")
    return parts


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet at large: not this machine's, nor of a private network, nor of one
    link, nor one that stands for such an address."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _TRANSLATED:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip.is_site_local or any(ip in network for network in _LOCAL_IPV6):
            return False
    return ip.is_global and not ip.is_multicast


_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")  # NAT64
_LOCAL_IPV6 = (ipaddress.IPv6Network("::/96"),  # IPv4 as IPv6 wrote it of old
               ipaddress.IPv6Network("64:ff9b:1::/48"))  # NAT64 within a network


class Downloader:
    """Fetches pictures, from any number of threads at once. Proxies are those of the environment (http_proxy,
    https_proxy, no_proxy) or of the system; behind one, names that only the proxy can resolve are left to it.

    Args:
        rules: What may be fetched.
    """

    def __init__(self, rules: WebRules) -> None:
        self.rules = rules
        self._closed = threading.Event()
        self._lines: set[_Line] = set()

    def fetch(self, url: str) -> io.BytesIO:
        """The content of a picture's file, with the URL as its `name`.

        Where a connection breaks off, or the server is busy (429, 502, 503, 504), it is asked for three times in all.

        Raises:
            BadImageError: It cannot be had, may not be, or is a web page. The message is one line, "URL: reason".
        """
        for pause in (*_PAUSES, None):
            try:
                return self._follow(url)
            except ConfigError as error:  # of a redirect, too
                raise BadImageError(str(error) if str(error).startswith(f"{url}:") else f"{url}: leads to {error}") \
                    from None
            except _Passing as error:
                if pause is None or self._closed.wait(pause):
                    raise BadImageError(f"{url}: {error}") from None
            except _Refused as error:
                raise BadImageError(f"{url}: {error}") from None
        raise AssertionError("unreachable")

    def close(self) -> None:
        """End what is under way: fetching fails from now on."""
        self._closed.set()
        for line in list(self._lines):
            line.hang_up()

    def _follow(self, url: str) -> io.BytesIO:
        place = url
        for _ in range(_REDIRECTS + 1):
            found = self._ask(place)
            if isinstance(found, bytes):
                picture = _Picture(found)
                picture.name = url
                return picture
            place = urljoin(place, found)
        raise _Refused(f"leads on by more than {_REDIRECTS} redirects")

    def _ask(self, url: str) -> bytes | str:
        """The content, or where it is said to be."""
        parts = check_url(url)
        host = str(parts.hostname)
        line = _Line()
        timer = threading.Timer(_TOTAL, line.expire)
        timer.daemon = True
        self._lines.add(line)
        timer.start()
        try:
            if self._closed.is_set():
                line.hang_up()
            line.check()
            with _in_words(host):
                found = self._exchange(line, parts, host)
            line.check()  # what breaks off in its head looks whole
            return found
        except _Refused:
            line.check()
            raise
        finally:
            timer.cancel()
            self._lines.discard(line)
            line.close()

    def _exchange(self, line: _Line, parts: SplitResult, host: str) -> bytes | str:
        port, secure = parts.port or _PORTS[parts.scheme], parts.scheme == "https"
        target = quote(parts.path or "/", safe=_SAFE) + \
            (f"?{quote(parts.query, safe=_SAFE)}" if parts.query else "")
        headers = {"User-Agent": "mvlib", "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity",
                   "Connection": "close"}
        proxy = _proxy_of(parts.scheme, host)
        if proxy is None:
            line.sock = _connect(self._addresses(host, port))
        else:
            with contextlib.suppress(socket.gaierror):
                self._addresses(host, port)  # refused here as well
            line.sock = _connect(_resolve(str(proxy.hostname), proxy.port or 80))
            authorization = _authorization(proxy)
            if secure:
                _tunnel(line.sock, host, port, authorization)
            else:
                target = f"http://{parts.netloc}{target}"
                headers.update(authorization)
        if secure:
            line.sock = _tls().wrap_socket(line.sock, server_hostname=host, do_handshake_on_connect=False)
            line.sock.do_handshake()
        connection = (http.client.HTTPSConnection if secure else http.client.HTTPConnection)(_bracketed(host), port)
        connection.sock = line.sock
        connection.request("GET", target, headers=headers)
        with connection.getresponse() as reply:
            if reply.status in _MOVED and reply.headers["Location"]:
                return reply.headers["Location"]
            return self._read(reply)

    def _addresses(self, host: str, port: int) -> list[_Entry]:
        """What a host may be connected to by."""
        found = _resolve(host, port)
        allowed = [entry for entry in found if self.rules.allow_local or is_public(entry[4][0])]
        if not allowed:
            shown = host if host == found[0][4][0] else f"{host} ({found[0][4][0]})"
            raise _Refused(f"leads to {shown}, an address of this machine or of a private network, which is connected "
                           f"to with --allow-local-urls alone")
        return allowed

    def _read(self, reply: http.client.HTTPResponse) -> bytes:
        if reply.status != 200:
            name = http.client.responses.get(reply.status)
            raise (_Passing if reply.status in _BUSY else _Refused)(
                f"the server answers {reply.status}{f' ({name})' if name else ''}")
        limit, length = self.rules.max_bytes, reply.length
        if length is not None and length > limit:
            raise _Refused(f"has {length / 1e6:.1f} MB, more than the {limit / 1e6:g} MB of --max-download")
        if (packed := reply.headers.get("Content-Encoding", "identity")) != "identity":
            raise _Refused(f"is sent packed, as {packed[:20]}, which it was not asked for")
        content = bytearray()
        while piece := reply.read(min(_PIECE, limit + 1 - len(content))):
            if not content:
                _refuse_pages(piece, reply.headers.get_content_type())
            content += piece
            if len(content) > limit:
                raise _Refused(f"has more than the {limit / 1e6:g} MB of --max-download")
        if length is not None and len(content) < length:
            raise _Passing(f"breaks off after {len(content)} of {length} bytes")
        return bytes(content)


class _Picture(io.BytesIO):
    name = ""


class _Line:
    """A connection that another thread can end."""

    def __init__(self) -> None:
        self.sock: socket.socket | None = None
        self.ended = self.expired = False

    def expire(self) -> None:
        self.expired = True
        self.hang_up()

    def hang_up(self) -> None:
        self.ended = True
        if self.sock is not None:
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)

    def check(self) -> None:
        """Raise where it was ended."""
        if self.ended:
            raise _Refused(f"is not there after {_TOTAL:.0f} s" if self.expired else "interrupted") from None

    def close(self) -> None:
        if self.sock is not None:
            self.sock.close()


@contextlib.contextmanager
def _in_words(host: str) -> Iterator[None]:
    """What the network does, as reasons."""
    try:
        yield
    except socket.gaierror as error:
        kind = _Passing if error.errno == socket.EAI_AGAIN else _Refused
        raise kind(f"the host {host} is not found ({error.strerror})") from None
    except UnicodeError:
        raise _Refused(f"the host {host} is no name of one") from None
    except TimeoutError:
        raise _Refused(f"the server does not answer for {_WAIT:.0f} s") from None
    except ssl.SSLCertVerificationError as error:
        raise _Refused(f"the certificate of {host} is not valid: {error.verify_message}") from None
    except ConnectionRefusedError:
        raise _Refused(f"the host {host} takes no connection") from None
    except ssl.SSLError as error:
        raise _Passing(f"no secure connection to {host}: {error.reason or 'it was closed'}") from None
    except (ConnectionError, http.client.IncompleteRead):
        raise _Passing("the connection broke off") from None
    except http.client.HTTPException as error:
        raise _Refused(f"the answer of {host} is not understood ({type(error).__name__})") from None
    except OSError as error:
        raise _Refused(f"{host} cannot be connected to: {error.strerror or error}") from None


def _resolve(host: str, port: int) -> list[_Entry]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


def _connect(addresses: list[_Entry]) -> socket.socket:
    """To the first address that takes a connection; nothing is resolved again."""
    problem: OSError = OSError("it has no address")
    for family, kind, protocol, _, address in addresses:
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:  # a family that this system does not have
            problem = error
            continue
        try:
            sock.settimeout(_WAIT)
            sock.connect(address)
            return sock
        except OSError as error:
            sock.close()
            problem = error
    raise problem


def _proxy_of(scheme: str, host: str) -> SplitResult | None:
    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    if not proxy or proxy_bypass(host):
        return None
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if parts.scheme not in _PORTS or not parts.hostname:
        raise _Refused(f"the proxy is of a kind that is not known here: {parts.scheme}")
    return parts


def _authorization(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    secret = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
    return {"Proxy-Authorization": f"Basic {base64.b64encode(secret).decode()}"}


def _tunnel(sock: socket.socket, host: str, port: int, headers: dict[str, str]) -> None:
    """Have a proxy pass on what is sent from now on."""
    place = f"{_bracketed(host)}:{port}"
    lines = [f"CONNECT {place} HTTP/1.1", f"Host: {place}", *(f"{key}: {value}" for key, value in headers.items())]
    sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
    answer = bytearray()
    while not answer.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)  # no more: what follows is the host's
        if not byte or len(answer) > _PIECE:
            raise _Passing("the proxy broke the connection off")
        answer += byte
    status = answer.split(None, 2)[1:2]
    if status != [b"200"]:
        raise _Refused(f"the proxy answers {status[0].decode('ascii', 'replace') if status else 'nothing'}")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _refuse_pages(start: bytes, kind: str) -> None:
    start = start[:1000].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")) or kind == "text/html" and start[:1] == b"<":
        raise _Refused("is a web page, not a picture: give the address of the picture itself")
    if start[:1] == b"<" and (b"<svg" in start or kind == "image/svg+xml"):
        raise _Refused("is a drawing (SVG), which has no pixels")
