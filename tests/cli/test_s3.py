"""Stores and sources on S3, and a server that fails every other request."""

from __future__ import annotations

import random
import socket
import tempfile
import threading
from pathlib import Path

import pytest

from auravae_cli.files import storage
from tests.cli.datasets import everything, picture, pictures, write_folder, write_tar

pytest.importorskip("s3fs")
pytest.importorskip("moto.server")

SHARDS = ["--layout", "shards", "--shard-size", "4", "--json"]


class Unreliable:
    """A WSGI application before moto's own: fails as many requests as it is told to."""

    def __init__(self, application):
        self.application, self.share, self.random = application, 0.0, random.Random(0)
        self.requests = self.failed = 0
        self.lock = threading.Lock()

    def __call__(self, environment, start_response):
        with self.lock:
            self.requests += 1
            chance = self.random.random()
            self.failed += chance < self.share
        if chance >= self.share:
            return self.application(environment, start_response)
        if chance < self.share / 2:
            environment["wsgi.input"].read(int(environment.get("CONTENT_LENGTH") or 0))
            start_response("503 Slow Down", [("Content-Type", "application/xml")])
            return [b"<Error><Code>SlowDown</Code><Message>Reduce your rate.</Message></Error>"]
        environment["werkzeug.socket"].shutdown(socket.SHUT_RDWR)  # and no answer at all
        raise ConnectionAbortedError


@pytest.fixture(scope="module")
def server():
    """moto's S3 on a free port of this machine."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Silent(WSGIRequestHandler):
        def log(self, *_):
            pass

    unreliable = Unreliable(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, unreliable, threaded=True, request_handler=Silent)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    unreliable.url = f"http://127.0.0.1:{server.server_port}"
    yield unreliable
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def s3(server, monkeypatch, work):
    """An empty bucket, found as users' endpoints are: by the environment."""
    import fsspec
    import s3fs

    for name, value in {
        "AWS_ENDPOINT_URL_S3": server.url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",  # botocore's pauses would be long
        "TMPDIR": str(work / "tmp"),
    }.items():
        monkeypatch.setenv(name, value)
    (work / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(storage, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    s3fs.S3FileSystem.clear_instance_cache()
    server.share = 0.0
    files = fsspec.filesystem("s3")
    files.mkdir("bucket")
    yield files
    server.share = 0.0
    files.rm("bucket", recursive=True)
    assert not list((work / "tmp").glob("*"))  # no scratch is left


@pytest.fixture
def fetched(s3):
    """All of a bucket's folder."""

    def fetch(prefix):
        s3.invalidate_cache()
        return {path[len(prefix) + 1 :]: s3.cat_file(path) for path in s3.find(prefix)}

    return fetch


def files_alone(folder):
    return {name: content for name, content in everything(folder).items() if name[-1] != "/"}


def upload(s3, work):
    """A folder and two tars."""
    write_folder(work / "data", pictures(7) | {"001.txt": b"one", "sub/x.png": picture(50)})
    for name, start in (("a", 20), ("b", 30)):
        write_tar(work / "data" / "tars" / f"{name}.tar", pictures(4, start=start))
    s3.put(str(work / "data"), "bucket/data", recursive=True)


def statuses(result):
    return {row["shard"]: row["status"] for row in result.rows}


def test_a_store_on_s3_is_the_local_one_and_is_gone_on_with(auravae, s3, work, fetched):
    upload(s3, work)
    assert auravae("encode", "s3://bucket/data", "-o", "local", *SHARDS).code == 0
    arguments = ["encode", "s3://bucket/data/", "-o", "s3://bucket/store/", *SHARDS]
    assert auravae(*arguments).code == 0
    assert fetched("bucket/store") == files_alone(Path("local"))
    again = auravae(*arguments)
    assert (again.code, set(statuses(again).values())) == (0, {"skipped"})
    s3.rm("bucket/store/tars/a.manifest.json")
    s3.pipe("bucket/store2/other.manifest.json", b"{}")  # a neighbour, whose name begins alike
    s3.pipe("bucket/data/new.png", picture(60))
    assert sorted(statuses(auravae(*arguments)).values()) == ["done", "done", "skipped", "skipped"]
    assert auravae("encode", "s3://bucket/data", "-o", "local", *SHARDS).code == 0
    assert fetched("bucket/store") == files_alone(Path("local"))
    assert fetched("bucket/store2") == {"other.manifest.json": b"{}"}


def test_names_on_s3(auravae, s3, work):
    upload(s3, work)
    for names, expected in (
        (["s3://bucket/data/tars/{a,b}.tar"], {"a": 4, "b": 4}),
        (["s3://bucket/data/tars/*.tar"], {"a": 4, "b": 4}),
        (["s3://bucket/data/**/x.png"], {"files-00000": 1}),
        (["s3://bucket/data/001.png", "s3://bucket/data/tars/a.tar"], {"a": 4, "files-00000": 1}),
    ):
        result = auravae("encode", *names, "-o", "s3://bucket/names", *SHARDS)
        assert {row["shard"]: row["rows"] for row in result.rows} == expected
        s3.rm("bucket/names", recursive=True)
    for missing in ("s3://bucket/nothing", "s3://no-such-bucket/x"):
        result = auravae("encode", missing, "-o", "s3://bucket/names", *SHARDS)
        assert result.code == 2 and "no pictures and no tars there" in result.message
    result = auravae("encode", "s3://bucket/data/no.tar", "-o", "s3://bucket/names", *SHARDS)
    assert result.code == 1 and "no.tar: cannot be read: No such file" in result.message


def test_a_bucket_that_is_not_there(auravae, s3, work):
    write_folder(work / "photos", pictures(1))
    result = auravae("encode", "photos", "-o", "s3://no-such-bucket/store", *SHARDS)
    assert result.code == 1
    assert result.err.startswith("error: s3://no-such-bucket/store/store.json: no such bucket")


@pytest.mark.parametrize("seed", [1, 2])
def test_a_server_that_fails_half_of_all_requests(auravae, s3, work, fetched, server, seed):
    upload(s3, work)
    assert auravae("encode", "s3://bucket/data", "-o", "local", *SHARDS).code == 0
    server.random.seed(seed)
    server.share, before = 0.5, (server.requests, server.failed)
    result = auravae("encode", "s3://bucket/data", "-o", "s3://bucket/store", *SHARDS)
    server.share = 0.0
    requests, failed = server.requests - before[0], server.failed - before[1]
    assert 0.3 < failed / requests < 0.7 and failed > 20
    if result.code:  # one in a thousand requests fails ten times over: the next run makes it good
        auravae("encode", "s3://bucket/data", "-o", "s3://bucket/store", *SHARDS)
    assert fetched("bucket/store") == files_alone(Path("local"))


def test_a_server_that_fails_them_all_ends_the_run_with_a_reason(auravae, s3, work, server):
    write_folder(work / "photos", pictures(1))
    server.share = 1.0
    result = auravae("encode", "photos", "-o", "s3://bucket/store", *SHARDS)
    assert result.code == 1
    assert "error: s3://bucket/store/store.json: gave up after 10 attempts: " in result.err


class Killed(BaseException):
    """As if the process had ended here."""


def test_a_kill_between_any_two_uploads(auravae, s3, work, fetched, monkeypatch):
    write_folder(work / "photos", pictures(2) | {"bad.png": b"x"})
    assert auravae("encode", "photos", "-o", "local", *SHARDS).code == 1
    whole, genuine = files_alone(Path("local")), storage.RemoteStorage._put
    for number in range(len(whole)):
        left = iter(range(number))

        def put(self, request, name, left=left):
            if next(left, None) is None:
                raise Killed
            return genuine(self, request, name)

        with monkeypatch.context() as patch:
            patch.setattr(storage.RemoteStorage, "_put", put)
            with pytest.raises(Killed):
                auravae("encode", "photos", "-o", "s3://bucket/store", *SHARDS)
        assert len(fetched("bucket/store")) == number
        auravae("encode", "photos", "-o", "s3://bucket/store", *SHARDS)
        assert fetched("bucket/store") == whole
        s3.rm("bucket/store", recursive=True)


def test_two_runs_with_other_settings_at_once(auravae, s3, work, fetched, monkeypatch):
    """The first stops between its look at the empty store and its settings, as the second runs."""
    write_folder(work / "photos", pictures(2))
    genuine = storage.RemoteStorage.create
    others = []

    def create(self, finished, name):
        if not others:
            others.append(None)
            others[0] = auravae(
                "encode", "photos", "-o", "s3://bucket/store", "--resize", 8, *SHARDS
            )
        return genuine(self, finished, name)

    monkeypatch.setattr(storage.RemoteStorage, "create", create)
    result = auravae("encode", "photos", "-o", "s3://bucket/store", *SHARDS)
    assert (others[0].code, result.code) == (0, 1)
    assert "holds latents of other settings" in result.message
    auravae("encode", "photos", "-o", "local", "--resize", 8, *SHARDS)
    assert fetched("bucket/store") == files_alone(Path("local"))
