"""Not a test: a local double of the Hub, for the real huggingface_hub client on the other side.

It speaks what the client asks for (huggingface_hub 2.4, without xet): who am I, repositories and branches, preupload,
LFS batch with PUT and verify, commits, validation of cards, info, trees, files in ranges, commits of their own number.
Every revision of a repository is a folder below `repositories/{name}/{commit}`, so a test can look at what arrived.
"""

import base64
import hashlib
import json
import re
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_test"
LFS_SUFFIXES = (".safetensors", ".png", ".bin")
KNOWN_LICENCES = {"apache-2.0", "mit", "other", "cc-by-4.0"}


@dataclass
class Fault:
    """What goes wrong with requests whose `METHOD path` fits a pattern.

    Attributes:
        pattern: Regular expression, searched in e.g. "PUT /lfs/…".
        status: Answer with this; None drops the connection in the middle of the body of a PUT or of the answer.
        times: How often; None always.
        latency_s: Wait before the request is worked on; with `status` 0 nothing else goes wrong.
        late: Drop the connection once the request has been worked on, in the middle of the answer.
    """

    pattern: str
    status: int | None = None
    times: int | None = 1
    latency_s: float = 0.0
    late: bool = False


@dataclass
class Repository:
    """Branches and commits of a repository; every commit is a folder."""

    folder: Path
    private: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)
    messages: dict[str, str] = field(default_factory=dict)

    def commit(self, base: str | None, files: dict[str, bytes], deleted: list[str], message: str) -> str:
        """Write the commit that follows `base`; returns its number."""
        content = json.dumps([base, sorted(files), deleted, message, len(self.commits)])
        number = hashlib.sha1(content.encode()).hexdigest()
        folder = self.folder / number
        if base is None:
            folder.mkdir(parents=True)
        else:
            shutil.copytree(self.folder / base, folder)
        for name in deleted:
            (folder / name).unlink()
        for name, data in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        self.commits.append(number)
        self.messages[number] = message
        return number

    def find(self, revision: str) -> str | None:
        """The commit of a branch or a number."""
        return self.branches.get(revision, revision if revision in self.commits else None)

    def path(self, revision: str = "main") -> Path:
        """The folder of a revision."""
        return self.folder / str(self.find(revision))

    def files(self, revision: str = "main") -> dict[str, Path]:
        """Its files by name."""
        root = self.path(revision)
        return {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file()}


class HubDouble:
    """The server; a context manager. `requests` holds every "METHOD path" in order, `faults` what shall go wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}  # LFS
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        self.forbidden: set[str] = set()  # repositories that the token may not write to
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> "HubDouble":
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to meet this double instead of the Hub."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_TOKEN": TOKEN,
            "HF_HOME": str(self.folder / "home"),
            "HF_MODULES_CACHE": str(self.folder / "modules"),
        }

    def fail(self, pattern: str, status: int | None = None, **how: Any) -> None:
        """Let something go wrong: see `Fault`."""
        self.faults.append(Fault(pattern, status, **how))

    def fault_for(self, request: str) -> Fault | None:
        """The first fault left that fits; used up."""
        with self.lock:
            self.requests.append(request)
            for fault in self.faults:
                if fault.times != 0 and re.search(fault.pattern, request):
                    fault.times = None if fault.times is None else fault.times - 1
                    return fault
        return None

    def asked(self, pattern: str) -> list[str]:
        """The requests so far that fit."""
        return [request for request in self.requests if re.search(pattern, request)]


def card_problems(text: str) -> list[str]:
    """What the Hub finds wrong with the metadata of a card, as far as a double knows."""
    match = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    if match is None:
        return ["no metadata"]
    try:
        data = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        return [f"metadata is no YAML: {error}"]
    problems = []
    if data.get("license") not in KNOWN_LICENCES:
        problems.append(f"license {data.get('license')!r} is not one of the Hub's")
    if data.get("license") == "other" and "license_name" in data and "license_link" not in data:
        problems.append("license_name without license_link")
    for model in data.get("model-index", []):
        for result in model["results"]:
            if not {"type", "name"} <= result["dataset"].keys() or "type" not in result["task"]:
                problems.append("model-index lacks data set or task")
            problems += ["metric without value" for metric in result["metrics"] if metric.get("value") is None]
    parents = data.get("base_model", [])
    for name in [parents] if isinstance(parents, str) else parents:
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
            problems.append(f"base_model {name!r} is no name on the Hub")
    return problems


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubDouble
    drop = False

    ROUTES: list[tuple[str, str, str]] = [
        ("GET", r"/api/whoami-v2", "whoami"),
        ("POST", r"/api/repos/create", "create"),
        ("POST", r"/api/validate-yaml", "validate"),
        ("POST", r"/api/models/(?P<name>[^/]+/[^/]+)/branch/(?P<revision>.+)", "branch"),
        ("POST", r"/api/models/(?P<name>[^/]+/[^/]+)/preupload/(?P<revision>.+)", "preupload"),
        ("POST", r"/api/models/(?P<name>[^/]+/[^/]+)/commit/(?P<revision>.+)", "commit"),
        ("GET", r"/api/models/(?P<name>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)(?:/.*)?", "tree"),
        ("GET", r"/api/models/(?P<name>[^/]+/[^/]+)/revision/(?P<revision>.+)", "info"),
        ("GET", r"/api/models/(?P<name>[^/]+/[^/]+)/auth-check/write", "auth_check"),
        ("GET", r"/api/models/(?P<name>[^/]+/[^/]+)", "info"),
        ("POST", r"/(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch", "batch"),
        ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", "put"),
        ("POST", r"/lfs/(?P<oid>[0-9a-f]{64})/verify", "verify"),
        ("GET", r"/(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)", "resolve"),
    ]

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._serve("GET")

    def do_HEAD(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_PUT(self) -> None:
        self._serve("PUT")

    def _serve(self, method: str) -> None:
        parts = urlsplit(self.path)
        path, self.query = unquote(parts.path), parts.query
        fault = self.hub.fault_for(f"{self.command} {path}")
        self.drop = fault is not None and fault.status is None
        if fault is not None and fault.latency_s:
            time.sleep(fault.latency_s)
        length = int(self.headers.get("Content-Length") or 0)
        if self.drop and method != "GET" and not fault.late:
            self.rfile.read(length // 2)
            self._hang_up()
            return
        self.body = self.rfile.read(length)
        if fault is not None and fault.status:
            self._answer(fault.status, {"error": "a fault of the test"}, {"Retry-After": "0"})
            return
        authorised = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        for verb, pattern, action in self.ROUTES:
            match = re.fullmatch(pattern, path)
            if verb == method and match is not None:
                if not authorised and action not in ("put", "resolve", "info", "tree", "validate"):
                    self._answer(
                        401,
                        {"error": "Invalid username or password."},
                        {"X-Error-Message": "Invalid credentials in Authorization header"},
                    )
                else:
                    getattr(self, action)(**match.groupdict())
                return
        self._answer(404, {"error": "not part of this double"}, {"X-Error-Code": "EntryNotFound"})

    # -- answers ------------------------------------------------------------------------------------------------------

    def whoami(self) -> None:
        self._answer(200, {"type": "user", "name": "me", "auth": {"accessToken": {"role": "write"}}})

    def create(self) -> None:
        asked = self._json()
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if name in self.hub.forbidden:
            self._answer(403, {"error": "You don't have the rights to create a model under this namespace"})
        elif name in self.hub.repositories:
            self._answer(409, {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"})
        else:
            made = Repository(self.hub.folder / "repositories" / name, asked.get("visibility") == "private")
            made.branches["main"] = made.commit(None, {".gitattributes": b"*.safetensors filter=lfs\n"}, [], "initial")
            self.hub.repositories[name] = made
            self._answer(200, {"url": f"{self.hub.url}/{name}", "name": name})

    def auth_check(self, name: str) -> None:
        self._with(name, lambda repository: self._answer(403 if name in self.hub.forbidden else 200, {}))

    def branch(self, name: str, revision: str) -> None:
        def make(repository: Repository) -> None:
            if revision in repository.branches:
                self._answer(409, {"error": "Reference already exists"})
            else:
                repository.branches[revision] = repository.branches["main"]
                self._answer(200, {})

        self._with(name, make)

    def validate(self) -> None:
        problems = card_problems(self._json()["content"])
        errors = [{"message": problem} for problem in problems]
        self._answer(400 if errors else 200, {"errors": errors, "warnings": []})

    def preupload(self, name: str, revision: str) -> None:
        def modes(repository: Repository) -> None:
            found = repository.files(revision)
            files = []
            for one in self._json()["files"]:
                lfs = one["path"].endswith(LFS_SUFFIXES)
                oid = _oid(found[one["path"]].read_bytes(), lfs) if one["path"] in found else None
                mode = "lfs" if lfs else "regular"
                files.append({"path": one["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
            self._answer(200, {"files": files})

        self._with(name, modes, revision)

    def batch(self, name: str) -> None:
        objects = []
        for one in self._json()["objects"]:
            url = f"{self.hub.url}/lfs/{one['oid']}"
            actions = {"upload": {"href": url}, "verify": {"href": f"{url}/verify"}}
            objects.append(one if one["oid"] in self.hub.objects else {**one, "actions": actions})
        self._with(name, lambda repository: self._answer(200, {"transfer": "basic", "objects": objects}))

    def put(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() == oid:
            self.hub.objects[oid] = self.body
            self._answer(200, {})
        else:
            self._answer(400, {"error": "the bytes are not those of the name"})

    def verify(self, oid: str) -> None:
        whole = oid in self.hub.objects and len(self.hub.objects[oid]) == self._json()["size"]
        self._answer(200 if whole else 404, {})

    def commit(self, name: str, revision: str) -> None:
        def add(repository: Repository) -> None:
            lines = [json.loads(line) for line in self.body.splitlines()]
            files, deleted = {}, []
            for line in lines[1:]:
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = self.hub.objects[value["oid"]]
                else:
                    deleted.append(value["path"])
            number = repository.commit(repository.find(revision), files, deleted, lines[0]["value"]["summary"])
            answer = {"commitUrl": f"{self.hub.url}/{name}/commit/{number}", "commitOid": number}
            if "create_pr=1" in self.query:
                reference = f"refs/pr/{len(repository.branches)}"
                repository.branches[reference] = number
                answer["pullRequestUrl"] = f"{self.hub.url}/{name}/discussions/1"
            else:
                repository.branches[revision] = number
            self._answer(200, answer)

        if name in self.hub.forbidden:
            self._answer(403, {"error": "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request"})
        else:
            self._with(name, add, revision)

    def info(self, name: str, revision: str = "main") -> None:
        def tell(repository: Repository) -> None:
            card = repository.files(revision).get("README.md")
            matter = card.read_text(encoding="utf-8").split("---\n")[1] if card else "{}"
            data = yaml.safe_load(matter)
            siblings = [{"rfilename": file} for file in repository.files(revision)]
            about = {"id": name, "modelId": name, "private": repository.private, "siblings": siblings, "tags": []}
            about |= {"sha": repository.find(revision), "cardData": data, "pipeline_tag": data.get("pipeline_tag")}
            self._answer(200, {**about, "library_name": data.get("library_name")})

        self._with(name, tell, revision)

    def tree(self, name: str, revision: str) -> None:
        def listing(repository: Repository) -> None:
            entries = []
            for file, path in repository.files(revision).items():
                data, lfs = path.read_bytes(), file.endswith(LFS_SUFFIXES)
                entry = {"type": "file", "path": file, "size": len(data), "oid": _oid(data, False)}
                pointer = {"lfs": {"oid": _oid(data, True), "size": len(data), "pointerSize": 100}} if lfs else {}
                entries.append({**entry, **pointer})
            self._answer(200, entries)

        self._with(name, listing, revision)

    def resolve(self, name: str, revision: str, file: str) -> None:
        def give(repository: Repository) -> None:
            path = repository.files(revision).get(file)
            commit = {"X-Repo-Commit": str(repository.find(revision))}
            if path is None:
                self._answer(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound", **commit})
                return
            data = path.read_bytes()
            tag = {**commit, "ETag": f'"{_oid(data, file.endswith(LFS_SUFFIXES))}"', "Accept-Ranges": "bytes"}
            span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if span is None:
                self._send(200, data, tag)
            else:
                start, end = int(span[1]), int(span[2] or len(data) - 1)
                place = {"Content-Range": f"bytes {start}-{end}/{len(data)}"}
                self._send(206, data[start : end + 1], {**tag, **place})

        self._with(name, give, revision)

    # -- plumbing -----------------------------------------------------------------------------------------------------

    def _json(self) -> Any:
        return json.loads(self.body)

    def _with(self, name: str, action: Callable[[Repository], None], revision: str = "main") -> None:
        repository = self.hub.repositories.get(name)
        hidden = repository is not None and repository.private and not self.headers.get("Authorization")
        if repository is None or hidden:
            self._answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        elif repository.find(revision) is None:
            self._answer(404, {"error": f"Invalid rev id: {revision}"}, {"X-Error-Code": "RevisionNotFound"})
        else:
            with self.hub.lock:
                action(repository)

    def _answer(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(content).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(data[: len(data) // 2] if self.drop else data)
        if self.drop:
            self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.close()


def _oid(data: bytes, lfs: bool) -> str:
    """The name of content: SHA-256 for large files, git's SHA-1 for others."""
    if lfs:
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
