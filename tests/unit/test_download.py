"""Downloads against a server of our own: resumed, checked, unpacked whole or not at all."""

from __future__ import annotations

import hashlib
import io
import random
import re
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from commands import call, succeed

from wsolbench.dataset import Dataset
from wsolbench.download import DOWNLOADS, Archive, fetch, unpack
from wsolbench.errors import InputError, WsolbenchError
from wsolbench.registry import DATASETS

CONTENT = {"data/a.txt": b"a" * 50_000, "data/sub/b.txt": b"b" * 9}


class Server(HTTPServer):
    """Serves ``files``; closes the connection after ``cut`` bytes where that is set."""

    files: dict[str, bytes]
    cut: int | None = None
    ranges: list[str]
    encodings: list[str]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        wanted = self.headers.get("Range", "")
        self.server.ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        self.server.encodings.append(self.headers["Accept-Encoding"])
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : self.server.cut])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as found:
        found.files, found.ranges, found.encodings = {}, [], []
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def tar(members: dict[str, bytes], mode: str = "w:gz") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def offered(server: Server, name: str, content: bytes, digest: str | None = "right") -> Archive:
    server.files[f"/{name}"] = content
    if digest == "right":
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return Archive(f"http://127.0.0.1:{server.server_port}/{name}", digest, "data")


def below(root: Path) -> dict[str, bytes]:
    return {f.relative_to(root).as_posix(): f.read_bytes() for f in root.rglob("*") if f.is_file()}


@pytest.mark.parametrize(("name", "make"), [("x.tgz", tar), ("x.zip", zipped)])
def test_an_archive_is_unpacked_once(
    server: Server, tmp_path: Path, name: str, make: object
) -> None:
    archive = offered(server, name, make(CONTENT))  # type: ignore[operator]
    (line,) = fetch([archive], tmp_path)
    assert line == f"{tmp_path / 'data'} unpacked from {name}"
    assert below(tmp_path) == CONTENT
    (line,) = fetch([archive], tmp_path)
    assert line == f"{tmp_path / 'data'} is there already"
    assert server.ranges == [""]


def test_bytes_are_counted_as_they_are_kept(server: Server, tmp_path: Path) -> None:
    content = tar(CONTENT)
    archive = offered(server, "x.tgz", content, digest=None)
    part = tmp_path / ".downloads" / "x.tgz.part"
    part.parent.mkdir()
    part.write_bytes(bytes(len(content) + 1))
    kept = f"{len(content) + 1} bytes were kept of {len(content)}; they are removed"
    with pytest.raises(WsolbenchError, match=kept):
        list(fetch([archive], tmp_path))
    list(fetch([archive], tmp_path))
    assert below(tmp_path) == CONTENT
    assert set(server.encodings) == {"identity"}


def test_a_download_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    content = tar({**CONTENT, "data/noise": bytes(range(256)) * 400}, "w")
    archive = offered(server, "x.tar", content)
    server.cut = 1 << 16
    with pytest.raises(WsolbenchError, match="the same command goes on"):
        list(fetch([archive], tmp_path))
    assert not (tmp_path / "data").exists()
    assert (tmp_path / DOWNLOADS / "x.tar.part").stat().st_size == 1 << 16
    server.cut = None
    list(fetch([archive], tmp_path))
    assert server.ranges == ["", f"bytes={1 << 16}-"]
    assert below(tmp_path).items() >= CONTENT.items()


def test_a_complete_part_is_taken_as_it_is(server: Server, tmp_path: Path) -> None:
    content = tar(CONTENT)
    archive = offered(server, "x.tgz", content)
    (tmp_path / DOWNLOADS).mkdir()
    (tmp_path / DOWNLOADS / "x.tgz.part").write_bytes(content)
    list(fetch([archive], tmp_path))
    assert below(tmp_path) == CONTENT


def test_a_file_of_another_checksum_is_not_unpacked(server: Server, tmp_path: Path) -> None:
    archive = offered(server, "x.tgz", tar(CONTENT), f"sha256:{'0' * 64}")
    for _ in range(2):  # and is fetched from its start again
        with pytest.raises(InputError, match="is not the file of checksum") as caught:
            list(fetch([archive], tmp_path))
        assert "\n" not in str(caught.value)
    assert server.ranges == ["", ""]
    assert not (tmp_path / "data").exists()


def test_what_is_not_there_is_said(server: Server, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{server.server_port}/none.tgz"
    with pytest.raises(WsolbenchError, match="404"):
        list(fetch([Archive(url, None, "data")], tmp_path))


def test_one_that_is_gone_does_not_stand_in_the_way_of_others(
    server: Server, tmp_path: Path
) -> None:
    gone = Archive(f"http://127.0.0.1:{server.server_port}/none.tgz", None, "none")
    lines = fetch([gone, offered(server, "x.tgz", tar(CONTENT))], tmp_path)
    assert next(lines) == f"{tmp_path / 'data'} unpacked from x.tgz"
    with pytest.raises(WsolbenchError, match="404"):
        next(lines)
    assert below(tmp_path) == CONTENT


def test_a_damaged_archive_with_a_folder_of_its_own_leaves_none(
    server: Server, tmp_path: Path
) -> None:
    content = tar({"0/a.txt": random.Random(0).randbytes(50_000)})
    bad, good = (
        Archive(offered(server, name, part, None).url, None, "own", into="own")
        for name, part in (("bad.tgz", content[: len(content) // 2]), ("good.tgz", content))
    )
    with pytest.raises(InputError, match="is damaged"):
        list(fetch([bad], tmp_path))
    assert not (tmp_path / "own").exists()
    list(fetch([good], tmp_path))
    assert (tmp_path / "own" / "0" / "a.txt").is_file()


EVIL = ["../evil.txt", "/tmp/wsolbench-evil.txt", "data/../../evil.txt", "C:\\evil.txt", "..\\e"]


@pytest.mark.parametrize("name", EVIL)
@pytest.mark.parametrize("make", [tar, zipped])
def test_no_path_leaves_the_folder(tmp_path: Path, name: str, make: object) -> None:
    file = tmp_path / "evil.archive"
    file.write_bytes(make({"data/good.txt": b"good", name: b"evil"}))  # type: ignore[operator]
    root = tmp_path / "deep/root"
    root.mkdir(parents=True)
    with pytest.raises(InputError, match="do not trust it"):
        unpack(file, root)
    assert below(tmp_path).keys() == {"evil.archive"}
    assert not Path("/tmp/wsolbench-evil.txt").exists()


@pytest.mark.parametrize("target", ["../../outside", "/etc"])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_no_link_of_a_tar_leads_outside(tmp_path: Path, target: str, kind: bytes) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        link = tarfile.TarInfo("data")
        link.type, link.linkname = kind, target
        archive.addfile(link)
        inside = tarfile.TarInfo("data/evil.txt")
        inside.size = 4
        archive.addfile(inside, io.BytesIO(b"evil"))
    file = tmp_path / "evil.tar"
    file.write_bytes(out.getvalue())
    root = tmp_path / "deep/root"
    root.mkdir(parents=True)
    with pytest.raises(InputError, match="do not trust it"):
        unpack(file, root)
    assert below(tmp_path).keys() == {"evil.tar"}


def test_no_link_of_a_zip_is_followed(tmp_path: Path) -> None:
    file = tmp_path / "evil.zip"
    with zipfile.ZipFile(file, "w") as archive:
        link = zipfile.ZipInfo("data")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc")
    with pytest.raises(InputError, match="holds a link, data; do not trust it"):
        unpack(file, tmp_path / "root")


def test_half_an_archive_leaves_nothing(tmp_path: Path) -> None:
    content = tar({"data/noise": bytes(range(256)) * 900, **CONTENT})
    file = tmp_path / "x.tgz"
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="is damaged"):
        unpack(file, tmp_path / "root")
    assert below(tmp_path).keys() == {"x.tgz"}


def test_what_is_there_already_stays(tmp_path: Path) -> None:
    (tmp_path / "root/data").mkdir(parents=True)
    (tmp_path / "root/data/a.txt").write_bytes(b"mine")
    file = tmp_path / "x.tgz"
    file.write_bytes(tar(CONTENT))
    unpack(file, tmp_path / "root")
    assert below(tmp_path / "root") == {**CONTENT, "data/a.txt": b"mine"}


def test_the_command(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dogs = DATASETS.get("stanford-dogs")
    monkeypatch.setattr(dogs, "archives", (offered(server, "x.tgz", tar(CONTENT)),))
    done = succeed("download", "stanford-dogs", "--data-root", tmp_path)
    assert done.out == f"{tmp_path / 'data'} unpacked from x.tgz\n"
    imagenet = DATASETS.get("ilsvrc")
    monkeypatch.setattr(imagenet, "archives", ())
    said = succeed("download", "ilsvrc", "--data-root", tmp_path).out
    assert "ILSVRC2012_img_val.tar (6.3 GB, MD5 29b22e2961454d5413ddabcf34fc5622)" in said
    assert f"cd {tmp_path}; mkdir -p ILSVRC/train" in said
    assert call("download", "toybirds", "--data-root", tmp_path).code == 0
    assert call("download", "dogs").code == 2


@pytest.mark.parametrize("cls", [DATASETS.get(name) for name in DATASETS.names()], ids=str)
def test_every_archive_says_what_it_gives(cls: type[Dataset]) -> None:
    for archive in cls.archives:
        assert archive.digest is None or re.fullmatch(
            r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", archive.digest
        )
        assert archive.gives.startswith(archive.into)
        assert archive.name
