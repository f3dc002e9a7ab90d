"""Bad headers, bad framing and bad methods, at both faces: what a client library would not send.

What HTTP itself forbids is answered before anybody knows which face was meant, in plain text, and
the connection is closed: where one request ends is not known any more.
"""

from __future__ import annotations

import gzip
import zlib

from tests.contract.data.inputs.names import document
from tests.contract.data.inputs.row import (
    AGENTS,
    EMPTY,
    GROUP,
    JSON,
    PLACE,
    PLAIN,
    STATUS,
    Ask,
    Bad,
    Header,
    by_admin,
    by_device,
    by_factory,
    content,
    typed,
)
from tests.fakes import bare_http
from tests.fakes.inputs_rig import Rig

FLEETS = f"{PLACE}/fleets"
NEW = document("Fleet", "new")
BODY = content(NEW)
LENGTH = str(len(BODY))


def get(id: str, code: int, expected: str, *headers: Header, form: str = STATUS) -> Bad:
    return Bad(id, by_admin("GET", FLEETS, b"", *headers), code, expected, form)


def post(
    id: str, code: int, expected: str, *headers: Header, body: bytes = BODY, form: str = STATUS
) -> Bad:
    return Bad(id, by_admin("POST", FLEETS, body, *headers), code, expected, form)


def raw(id: str, text: str, expected: str = "", code: int = 400, form: str = PLAIN) -> Bad:
    """Lines as they are; an empty one follows."""
    sent = text.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n"
    return Bad(id, lambda rig: Ask(rig.admin, sent), code, expected, form)


def framed(id: str, headers: str, body: bytes, expected: str = "", form: str = PLAIN) -> Bad:
    """A POST whose headers about its length contradict each other, or its body."""
    head = f"POST {FLEETS} HTTP/1.1\nHost: x\nContent-Type: application/json\n{headers}\n\n"
    sent = head.replace("\n", "\r\n").encode("latin-1") + body
    return Bad(f"framing-{id}", lambda rig: Ask(rig.admin, sent, "POST"), 400, expected, form)


def method(id: str, name: str, target: str, code: int = 405, expected: str = "not allow") -> Bad:
    return Bad(f"method-{id}", by_admin(name, target), code, expected)


def at_agents(id: str, name: str, target: str, expected: str = "method not allowed") -> Bad:
    return Bad(f"agent-method-{id}", by_device(name, target), 404, expected)


def agent_post(id: str, code: int, expected: str, *headers: Header, body: bytes = b"{}") -> Bad:
    row = by_factory("POST", "/enrollmentrequests", body, *headers)
    return Bad(f"agent-{id}", row, code, expected)


def agent_raw(id: str, text: str, expected: str = "") -> Bad:
    sent = text.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n"
    return Bad(f"agent-raw-{id}", lambda rig: Ask(rig.factory, sent), 400, expected, PLAIN)


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (*pieces, b""))


def head_of_nothing(rig: Rig) -> Ask:
    return Ask(rig.admin, bare_http.request("HEAD", f"{FLEETS}/nobody"), "HEAD")


GZIP, DEFLATE = ("Content-Encoding", "gzip"), ("Content-Encoding", "deflate")
NEGOTIATED, MEDIA = "media types are accepted", "accepted media types"
START = f"GET {FLEETS} HTTP/1.1\nHost: x"

ACCEPT = [
    get("accept-html", 406, NEGOTIATED, ("Accept", "text/html")),
    get("accept-protobuf", 406, NEGOTIATED, ("Accept", "application/vnd.kubernetes.protobuf")),
    get("accept-cbor", 406, NEGOTIATED, ("Accept", "application/cbor")),
    get("accept-xml", 406, NEGOTIATED, ("Accept", "application/xml, text/xml;q=0.9")),
    get("accept-no-json", 406, NEGOTIATED, ("Accept", "application/json;q=0")),
    get("accept-nothing", 406, NEGOTIATED, ("Accept", "*/*;q=0")),
    get("accept-image", 406, NEGOTIATED, ("Accept", "image/*")),
    get("accept-text", 406, NEGOTIATED, ("Accept", "text/*")),
    get("accept-no-type", 406, NEGOTIATED, ("Accept", "json")),
    get("accept-not-utf-8", 406, NEGOTIATED, ("Accept", "\xff\xfe")),
    get("accept-blanks-inside", 406, NEGOTIATED, ("Accept", "application / json")),
    get("accept-half-a-type", 406, NEGOTIATED, ("Accept", "application/")),
    get("accept-shape-unknown", 406, NEGOTIATED, ("Accept", "application/json;as=Chart;v=v1;g=x")),
    get(
        "accept-table-of-another-age",
        406,
        NEGOTIATED,
        ("Accept", "application/json;as=Table;v=v9;g=meta.k8s.io"),
    ),
    get(
        "accept-table-of-another-group",
        406,
        NEGOTIATED,
        ("Accept", "application/json;as=Table;v=v1;g=example.com"),
    ),
    get(
        "accept-good-one-beyond-the-last",
        406,
        NEGOTIATED,
        ("Accept", ",".join(["text/html"] * 40 + ["application/json"])),
    ),
    post("accept-html-and-write", 406, NEGOTIATED, JSON, ("Accept", "text/html")),
    Bad(
        "accept-html-and-delete",
        by_admin("DELETE", f"{FLEETS}/one", b"", ("Accept", "text/html")),
        406,
        NEGOTIATED,
    ),
    Bad(
        "accept-yaml-of-a-watch",
        by_admin("GET", f"{FLEETS}?watch=1&timeoutSeconds=1", b"", ("Accept", "application/yaml")),
        406,
        NEGOTIATED,
    ),
    Bad(
        "accept-html-of-discovery",
        by_admin("GET", "/apis", b"", ("Accept", "text/html")),
        406,
        NEGOTIATED,
    ),
]

TYPES = [
    post("type-text", 415, MEDIA, typed("text/plain")),
    post("type-xml", 415, MEDIA, typed("application/xml")),
    post("type-form", 415, MEDIA, typed("application/x-www-form-urlencoded")),
    post("type-multipart", 415, MEDIA, typed("multipart/form-data; boundary=x")),
    post("type-cbor", 415, MEDIA, typed("application/cbor")),
    post("type-octets", 415, MEDIA, typed("application/octet-stream")),
    post("type-protobuf-of-json", 400, "protobuf", typed("application/vnd.kubernetes.protobuf")),
    post("type-wildcard", 415, MEDIA, typed("*/*")),
    post("type-list", 415, MEDIA, typed("application/json, application/yaml")),
    post("type-not-utf-8", 415, MEDIA, typed("\xff\xfe")),
    post("type-long", 415, MEDIA, typed("application/" + "x" * 8000)),
    post(
        "type-utf-16",
        400,
        "not UTF-8",
        typed("application/json; charset=utf-16"),
        body=BODY.decode().encode("utf-16"),
    ),
    post("type-twice-bad-first", 400, "duplicate", typed("text/plain"), JSON, form=PLAIN),
    post("type-of-a-patch", 415, MEDIA, typed("application/merge-patch+json")),
]

ENCODINGS = [
    post("encoding-gzip-of-none", 400, "", JSON, GZIP),
    post("encoding-gzip-cut", 400, "", JSON, GZIP, body=gzip.compress(BODY)[:-12]),
    post("encoding-deflate-of-none", 400, "", JSON, DEFLATE),
    post(
        "encoding-deflate-changed",
        400,
        "",
        JSON,
        DEFLATE,
        body=zlib.compress(BODY)[:20] + b"\0" * 20,
        form=PLAIN,
    ),
    post("encoding-unknown", 400, "", JSON, ("Content-Encoding", "homemade"), body=b"\x01\x02"),
    post("encoding-bomb", 413, "larger than", JSON, GZIP, body=gzip.compress(b" " * (64 << 20))),
    post(
        "encoding-twice",
        400,
        "",
        JSON,
        ("Content-Encoding", "gzip, gzip"),
        body=gzip.compress(gzip.compress(BODY)),
    ),
    agent_post("encoding-gzip-of-none", 400, "", JSON, GZIP),
    agent_post("encoding-bomb", 413, "", JSON, GZIP, body=gzip.compress(b" " * (64 << 20))),
]

FRAMING = [
    framed(
        "length-and-chunks", f"Content-Length: {LENGTH}\nTransfer-Encoding: chunked", chunked(BODY)
    ),
    framed(
        "chunks-and-length", f"Transfer-Encoding: chunked\nContent-Length: {LENGTH}", chunked(BODY)
    ),
    framed("two-lengths", f"Content-Length: {LENGTH}\nContent-Length: 5", BODY),
    framed("the-same-length-twice", f"Content-Length: {LENGTH}\nContent-Length: {LENGTH}", BODY),
    framed("length-list", f"Content-Length: {LENGTH}, {LENGTH}", BODY),
    framed("length-negative", "Content-Length: -1", BODY),
    framed("length-signed", f"Content-Length: +{LENGTH}", BODY),
    framed("length-text", "Content-Length: all", BODY),
    framed("length-hexadecimal", "Content-Length: 0x10", BODY),
    framed("length-fraction", "Content-Length: 1.5", BODY),
    framed("length-empty", "Content-Length:", BODY),
    framed("length-huge", f"Content-Length: {'9' * 30}", BODY),
    framed("length-with-a-blank", "Content-Length: 1 0", BODY),
    framed("length-above-ascii", "Content-Length: \xb2", BODY),
    framed("transfer-unknown", "Transfer-Encoding: homemade", BODY),
    framed("transfer-identity", "Transfer-Encoding: identity", BODY),
    framed("transfer-chunked-twice", "Transfer-Encoding: chunked, chunked", chunked(BODY)),
    framed("transfer-chunked-not-last", "Transfer-Encoding: chunked, gzip", chunked(BODY)),
    framed(
        "transfer-two-headers",
        "Transfer-Encoding: chunked\nTransfer-Encoding: identity",
        chunked(BODY),
    ),
    framed("transfer-misspelt", "Transfer-Encoding: xchunked", chunked(BODY)),
    framed("transfer-with-a-blank-before-the-colon", "Transfer-Encoding : chunked", chunked(BODY)),
    framed("chunk-size-text", "Transfer-Encoding: chunked", b"all\r\n{}\r\n0\r\n\r\n"),
    framed("chunk-size-negative", "Transfer-Encoding: chunked", b"-2\r\n{}\r\n0\r\n\r\n"),
    framed("chunk-size-prefixed", "Transfer-Encoding: chunked", b"0x2\r\n{}\r\n0\r\n\r\n"),
    framed("chunk-size-huge", "Transfer-Encoding: chunked", b"f" * 40 + b"\r\n{}\r\n0\r\n\r\n"),
    framed("chunk-longer-than-said", "Transfer-Encoding: chunked", b"1\r\n{}\r\n0\r\n\r\n"),
    framed("chunk-ends-with-a-line-feed", "Transfer-Encoding: chunked", b"2\n{}\n0\n\n"),
]

LINES = [
    raw("line-version-1-2", f"GET {FLEETS} HTTP/1.2\nHost: x"),
    raw("line-version-3", f"GET {FLEETS} HTTP/3\nHost: x"),
    raw("line-version-small", f"GET {FLEETS} http/1.1\nHost: x"),
    raw("line-version-of-another", f"GET {FLEETS} ICE/1.0\nHost: x"),
    raw("line-preface-of-http-2", "PRI * HTTP/2.0\n\nSM"),
    raw("line-target-missing", "GET HTTP/1.1\nHost: x"),
    raw("line-method-missing", f"{FLEETS} HTTP/1.1\nHost: x"),
    raw("line-method-with-a-bracket", f"G(T {FLEETS} HTTP/1.1\nHost: x"),
    raw("line-method-with-nul", f"G\0T {FLEETS} HTTP/1.1\nHost: x"),
    raw("line-tabs", f"GET\t{FLEETS}\tHTTP/1.1\nHost: x"),
    raw("line-nonsense", "hello"),
    raw("line-of-another-protocol", "EHLO example.com"),
    raw("line-binary", "\x16\x03\x01\x02\x00\x01\x00"),
    raw("line-carriage-return-inside", f"GET {FLEETS}\rX HTTP/1.1\nHost: x"),
    raw("header-no-colon", f"{START}\nX-Nothing"),
    raw("header-no-name", f"{START}\n: x"),
    raw("header-blank-in-name", f"{START}\nX Nothing: x"),
    raw("header-blank-before-colon", f"{START}\nX-Nothing : x"),
    raw("header-bracket-in-name", f"{START}\nX(Nothing): x"),
    raw("header-nul-in-name", f"{START}\nX\0Nothing: x"),
    raw("header-above-ascii-in-name", f"{START}\nX-\xe9: x"),
    raw("header-nul-in-value", f"{START}\nX-Nothing: a\0b"),
    raw("header-carriage-return-in-value", f"{START}\nX-Nothing: a\rb"),
    raw("header-continued", f"{START}\nX-Nothing: a\n b"),
    raw("header-first-continued", f"GET {FLEETS} HTTP/1.1\n Host: x"),
    raw("header-too-long", f"{START}\nX-Nothing: {'x' * 20_000}", "got more than"),
    raw("header-name-too-long", f"{START}\n{'x' * 20_000}: x", "got more than"),
    raw("headers-too-many", START + "".join(f"\nX-{n}: x" for n in range(4000))),
    raw("host-twice", f"{START}\nHost: y"),
    raw("host-missing", f"GET {FLEETS} HTTP/1.1"),
    raw("target-asterisk", "OPTIONS * HTTP/1.1\nHost: x", "could not find", 404, STATUS),
    raw(
        "target-authority", "CONNECT localhost:443 HTTP/1.1\nHost: x", "could not find", 404, STATUS
    ),
    raw("target-relative", f"GET {FLEETS[1:]} HTTP/1.1\nHost: x"),
    raw("target-fragment", f"GET {FLEETS}/nobody#x HTTP/1.1\nHost: x", "not found", 404, STATUS),
    raw(
        "target-elsewhere",
        "GET http://169.254.169.254/latest HTTP/1.1\nHost: x",
        "could not find",
        404,
        STATUS,
    ),
    raw("target-elsewhere-port", "GET http://x:99999/y HTTP/1.1\nHost: x"),
    raw("expect-unknown", f"{START}\nExpect: 200-ok", "unknown expect", 417),
    raw(
        "upgrade-to-a-websocket",
        f"GET {FLEETS}/nobody HTTP/1.1\nHost: x\nConnection: Upgrade\n"
        "Upgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: x",
        "not found",
        404,
        STATUS,
    ),
    raw("old-http", f"GET {FLEETS}/nobody HTTP/1.0", "not found", 404, STATUS),
    raw(
        "old-http-kept-open",
        f"GET {FLEETS}/nobody HTTP/1.0\nConnection: keep-alive",
        "not found",
        404,
        STATUS,
    ),
    raw(
        "closed-when-asked",
        f"GET {FLEETS}/nobody HTTP/1.1\nHost: x\nConnection: close",
        "not found",
        404,
        STATUS,
    ),
]

METHODS = [
    raw("method-unknown", f"BREW {FLEETS} HTTP/1.1\nHost: x", "invalid method"),
    raw("method-small", f"get {FLEETS} HTTP/1.1\nHost: x", "invalid method"),
    method("webdav", "PROPFIND", FLEETS),
    method("trace", "TRACE", FLEETS),
    method("options", "OPTIONS", FLEETS),
    method("connect-as-a-verb", "LINK", FLEETS),
    method("put-many", "PUT", FLEETS),
    method("patch-many", "PATCH", FLEETS),
    method("post-one", "POST", f"{FLEETS}/one"),
    method("post-status", "POST", f"{FLEETS}/one/status"),
    method("put-rendered", "PUT", f"{PLACE}/devices/x/rendered"),
    method("get-bindings", "GET", f"{FLEETS}/one/bindings"),
    method("post-everywhere", "POST", f"{GROUP}/fleets"),
    method("delete-discovery", "DELETE", "/apis"),
    method("post-version", "POST", "/version"),
    method("put-health", "PUT", "/readyz"),
    method("post-template-version", "POST", f"{PLACE}/templateversions", 403, "forbidden"),
    Bad(
        "method-override",
        by_admin("POST", f"{FLEETS}/one", b"", ("X-HTTP-Method-Override", "DELETE")),
        405,
        "not allow",
    ),
    Bad(
        "method-override-in-the-query",
        by_admin("POST", f"{FLEETS}/one?_method=DELETE"),
        405,
        "not allow",
    ),
    Bad("head-of-nothing", head_of_nothing, 404, "", EMPTY),
    at_agents("delete-a-device", "DELETE", "/devices/{name}/rendered"),
    at_agents("post-a-status", "POST", "/devices/{name}/status"),
    at_agents("put-a-request", "PUT", "/enrollmentrequests/x"),
    at_agents("delete-a-request", "DELETE", "/enrollmentrequests/x"),
    at_agents("options", "OPTIONS", "/devices/{name}/rendered"),
    at_agents("webdav", "PROPFIND", "/devices/{name}/rendered"),
    agent_raw("method-unknown", f"BREW {AGENTS}/devices HTTP/1.1\nHost: x", "invalid method"),
    at_agents("list-requests", "GET", "/enrollmentrequests"),
]

AS_OTHERS = [
    get("as-another", 403, "impersonation", ("Impersonate-User", "ada")),
    get("as-a-group", 403, "impersonation", ("Impersonate-Group", "system:masters")),
    get("as-a-uid", 403, "impersonation", ("Impersonate-Uid", "1")),
    get("as-more", 403, "impersonation", ("Impersonate-Extra-Scopes", "x")),
    get("as-another-in-small-letters", 403, "impersonation", ("impersonate-user", "ada")),
    Bad(
        "as-a-proxy-would",
        lambda rig: Ask(
            rig.anybody,
            bare_http.request(
                "GET", FLEETS, [("X-Remote-User", "admin"), ("X-Remote-Group", "system:masters")]
            ),
        ),
        401,
        "Unauthorized",
    ),
    Bad(
        "with-a-certificate-in-a-header",
        lambda rig: Ask(
            rig.anybody,
            bare_http.request(
                "GET", FLEETS, [("X-Client-Cert", "MIIB"), ("X-SSL-Client-Verify", "SUCCESS")]
            ),
        ),
        401,
        "Unauthorized",
    ),
    Bad(
        "with-a-cookie",
        lambda rig: Ask(
            rig.anybody, bare_http.request("GET", FLEETS, [("Cookie", "session=admin")])
        ),
        401,
        "Unauthorized",
    ),
    Bad(
        "from-this-machine",
        lambda rig: Ask(
            rig.anybody,
            bare_http.request(
                "GET", FLEETS, [("X-Forwarded-For", "127.0.0.1"), ("Forwarded", "for=127.0.0.1")]
            ),
        ),
        401,
        "Unauthorized",
    ),
]

AT_AGENTS = [
    agent_post("type-none", 400, "Content-Type", ("X-Nothing", "x")),
    agent_post("type-text", 400, "Content-Type", typed("text/plain")),
    agent_post("type-yaml", 400, "Content-Type", typed("application/yaml")),
    agent_post("type-empty", 400, "Content-Type", typed("")),
    agent_post("type-not-utf-8", 400, "Content-Type", typed("\xff\xfe")),
    agent_post("body-none", 400, "decode", JSON, body=b" "),
    agent_post("body-not-json", 400, "decode", JSON, body=b"{"),
    agent_post("body-not-utf-8", 400, "decode", JSON, body=b'{"a": "\xff"}'),
    agent_post("body-nan", 400, "decode", JSON, body=b'{"a": NaN}'),
    agent_post("body-two", 400, "decode", JSON, body=b"{}{}"),
    agent_post("body-deep", 400, "decode", JSON, body=b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"),
    agent_post("body-nul", 400, "Unicode", JSON, body=b'{"a": "\\u0000"}'),
    agent_post("body-surrogate", 400, "decode", JSON, body=b'{"a": "\\ud800"}'),
    agent_post("version-old", 406, "not supported", JSON, ("Flightctl-API-Version", "v1alpha1")),
    agent_post("version-empty", 406, "not supported", JSON, ("Flightctl-API-Version", "")),
    agent_post("version-list", 406, "not supported", JSON,
               ("Flightctl-API-Version", "v1beta1, v1")),
    agent_post("version-not-utf-8", 406, "not supported", JSON,
               ("Flightctl-API-Version", "\xff\xfe")),
    agent_post("version-long", 406, "not supported", JSON, ("Flightctl-API-Version", "v" * 4000)),
    agent_raw("line-nonsense", "hello"),
    agent_raw("two-lengths", f"POST {AGENTS}/enrollmentrequests HTTP/1.1\nHost: x\n"
              "Content-Length: 1\nContent-Length: 2"),
    agent_raw("header-nul", f"GET {AGENTS}/enrollmentrequests/x HTTP/1.1\nHost: x\nX: a\0b"),
    agent_raw("header-too-long", f"GET {AGENTS}/x HTTP/1.1\nHost: x\nX: {'x' * 20_000}",
              "got more than"),
    agent_raw("preface-of-http-2", "PRI * HTTP/2.0\n\nSM"),
]  # fmt: skip

ROWS = [
    *ACCEPT,
    *TYPES,
    *ENCODINGS,
    *FRAMING,
    *LINES,
    *METHODS,
    *AS_OTHERS,
    *AT_AGENTS,
]
