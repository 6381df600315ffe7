"""A stand-in of the hub: a real HTTP server with the endpoints that are used.

Repositories live in memory, each branch a list of commits. What the hub keeps
elsewhere (large files) is kept beside the rest. The answers have the hub's
shapes, so that its own client, unchanged, is what talks to it.
"""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from urllib.parse import unquote, urlsplit

TOKEN, READER, USER = "hf_writes", "hf_reads", "tester"
_API = re.compile(r"/api/models/([^/]+/[^/]+)(?:/(\w[\w-]*)(?:/([^/?]+))?)?")
_RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


class HubStandIn:
    """What it holds, and a log of what it was asked."""

    def __init__(self):
        self.repositories, self.asked = {}, []
        # Listed under these names too, whatever a client makes of it.
        self.listed_too = {}
        self.url, self._commits = None, count()

    def commit(self, repo_id, branch, files, deleted=()):
        """Add a commit; its hash."""
        repository = self.repositories[repo_id]
        before = repository["commits"].get(
            repository["branches"].get(branch), {}
        )
        kept = {n: d for n, d in before.items() if n not in deleted}
        kept |= files
        sha = hashlib.sha1(
            f"{repo_id} {branch} {next(self._commits)}".encode()
        ).hexdigest()
        repository["commits"][sha] = kept
        repository["branches"][branch] = sha
        return sha

    def add(self, repo_id, files=None, private=False):
        """Make a repository, perhaps with files."""
        self.repositories[repo_id] = {
            "commits": {},
            "branches": {},
            "private": private,
        }
        self.commit(repo_id, "main", files or {})

    def find(self, repo_id, revision):
        """A revision's hash and files; None if there is none."""
        repository = self.repositories[repo_id]
        sha = repository["branches"].get(revision, revision)
        if sha not in repository["commits"]:
            return None
        return sha, repository["commits"][sha]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    @property
    def hub(self):
        return self.server.hub

    def do_GET(self):
        self._answer("GET")

    def do_HEAD(self):
        self._answer("HEAD")

    def do_POST(self):
        self._answer("POST")

    def _answer(self, method):
        path = unquote(urlsplit(self.path).path)
        size = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(size)
        self.hub.asked.append((method, path))
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if found := _RESOLVE.fullmatch(path):
            return self._resolve(*found.groups())
        if found := _API.fullmatch(path):
            return self._api(method, *found.groups(), body)
        return self._fail(404, "EntryNotFound", f"no endpoint {path}")

    def _who(self):
        given = self.headers.get("Authorization", "")
        return given.removeprefix("Bearer ") or None

    def _may(self, repo_id, write):
        """Whether who asks may do it; the answer is given if not."""
        if write and self._who() != TOKEN:
            code = 401 if self._who() is None else 403
            self._fail(code, None, "Invalid username or password.")
            return False
        repository = self.hub.repositories.get(repo_id)
        known = self._who() in (TOKEN, READER)
        if repository is None or (repository["private"] and not known):
            # Without a login the hub does not say which of both it is.
            self._fail(404 if known else 401, "RepoNotFound", "not found")
            return False
        return True

    def _create(self, asked):
        if self._who() != TOKEN:
            code = 401 if self._who() is None else 403
            return self._fail(code, None, "Invalid username or password.")
        repo_id = f"{asked.get('organization') or USER}/{asked['name']}"
        url = {"url": f"{self.hub.url}/{repo_id}"}
        if repo_id in self.hub.repositories:
            return self._json({"error": "You already created it", **url}, 409)
        private = asked.get("private") or asked.get("visibility") == "private"
        self.hub.add(repo_id, private=bool(private))
        return self._json(url)

    def _api(self, method, repo_id, what, revision, body):
        write = method == "POST" and what in ("commit", "preupload", "branch")
        if not self._may(repo_id, write):
            return None
        if what == "branch":
            return self._branch(repo_id, revision)
        found = self.hub.find(repo_id, revision or "main")
        if found is None:
            return self._fail(404, "RevisionNotFound", "Invalid rev id")
        sha, files = found
        if what == "preupload":
            return self._json(
                {
                    "files": [
                        {
                            "path": file["path"],
                            "uploadMode": "regular",
                            "shouldIgnore": False,
                        }
                        for file in json.loads(body)["files"]
                    ]
                }
            )
        if what == "commit":
            return self._commit(repo_id, revision, body)
        listed = {**files, **self.hub.listed_too.get(repo_id, {})}
        if what == "tree":
            return self._json([_entry(n, d) for n, d in listed.items()])
        siblings = [{"rfilename": name} for name in listed]
        return self._json({"id": repo_id, "sha": sha, "siblings": siblings})

    def _branch(self, repo_id, name):
        repository = self.hub.repositories[repo_id]
        if name in repository["branches"]:
            return self._json({"error": "Reference already exists"}, 409)
        repository["branches"][name] = repository["branches"]["main"]
        return self._json({})

    def _commit(self, repo_id, revision, body):
        files, deleted = {}, []
        for line in body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                assert value["encoding"] == "base64"
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "deletedFile":
                deleted.append(value["path"])
        sha = self.hub.commit(repo_id, revision, files, deleted)
        url = f"{self.hub.url}/{repo_id}/commit/{sha}"
        return self._json({"success": True, "commitUrl": url, "commitOid": sha})

    def _resolve(self, repo_id, revision, name):
        if not self._may(repo_id, write=False):
            return None
        found = self.hub.find(repo_id, revision)
        if found is None:
            return self._fail(404, "RevisionNotFound", "Invalid rev id")
        sha, files = found
        files = {**files, **self.hub.listed_too.get(repo_id, {})}
        if name not in files:
            return self._fail(404, "EntryNotFound", "Entry not found")
        headers = {"ETag": f'"{_oid(files[name])}"', "X-Repo-Commit": sha}
        return self._send(200, files[name], "text/plain", headers)

    def _json(self, value, code=200, headers=None):
        data = json.dumps(value).encode()
        self._send(code, data, "application/json", headers)

    def _fail(self, code, kind, message):
        headers = {"X-Error-Message": message}
        if kind:
            headers["X-Error-Code"] = kind
        self._json({"error": message}, code, headers)

    def _send(self, code, data, kind, headers=None):
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _oid(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _entry(name, data):
    return {
        "type": "file",
        "path": name,
        "size": len(data),
        "oid": _oid(data),
    }


@contextmanager
def serve():
    """A stand-in that listens on a free port of this machine."""
    hub = HubStandIn()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.hub, server.daemon_threads = hub, True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
