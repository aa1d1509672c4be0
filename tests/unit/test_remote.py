"""Sources that lie elsewhere give the shards that they give from a disk, and stores that do not
answer end in a sentence. The stores: fsspec's in memory, and a server of S3 in this process.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jpeglm.codecs import make_codec
from jpeglm.config import InputError
from jpeglm.data.prepare import prepare
from jpeglm.data.settings import PrepareConfig
from jpeglm.data.sources import open_source
from jpeglm.files import staged
from jpeglm.folders import kind_of
from jpeglm.remote import Unreachable, names_in, place, reaching

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("upath", reason="the extra remote is not installed")

CODEC = make_codec({"codec": "jpeg", "width": 32, "height": 32, "quality": 25})
SETTINGS = PrepareConfig(validation=0.3, unit_size=8)


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).resize((90, 70)).save(out, "JPEG")
    return out.getvalue()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files with captions, hidden ones, a tar, a gzipped tar, a table, a saved dataset, shards of
    our own, an empty file and one that is none."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Dataset, Features, Value
    from datasets import Image as Pictures

    home = tmp_path_factory.mktemp("photos")
    for number in range(12):
        path = home / "ab"[number % 2] / f"{number:02d} x.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(picture(number))
    lines = [{"file_name": "00 x.jpg", "text": "a red heart"}]
    (home / "a" / "metadata.jsonl").write_text("".join(json.dumps(line) for line in lines))
    (home / "a.b").mkdir()
    (home / "a.b" / "x.png").write_bytes(picture(30))
    (home / ".hidden.jpg").write_bytes(picture(31))
    (home / ".trash").mkdir()
    (home / ".trash" / "y.jpg").write_bytes(picture(32))
    (home / "b" / "empty.jpg").write_bytes(b"")
    (home / "b" / "text.jpg").write_text("no picture")
    (home / "notes.txt").write_text("nothing")
    for name, mode in (("set.tar", "w"), ("set.tar.gz", "w:gz")):
        with tarfile.open(home / name, mode) as tar:
            for number in range(20):
                data = picture(40 + number)
                info = tarfile.TarInfo(f"{number}.jpg")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    table = pa.table({"image": pa.array([picture(70 + number) for number in range(20)])})
    pq.write_table(table, home / "table.parquet", row_group_size=7)
    rows = {"image": [{"bytes": picture(100 + number), "path": None} for number in range(5)],
            "label": list(range(5))}  # fmt: skip
    kinds = Features({"image": Pictures(), "label": Value("int64")})
    Dataset.from_dict(rows, features=kinds).save_to_disk(home / "saved")
    (home / "ours").mkdir()
    (home / "ours" / "prepare.json").write_text("{}")
    (home / "ours" / "z.jpg").write_bytes(picture(33))
    return home


@pytest.fixture(scope="module")
def near(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("near") / "out"
    prepare(photos, out, CODEC, SETTINGS, workers=1)
    return out


@pytest.fixture(scope="module")
def memory(photos: Path) -> Iterator[str]:
    store = fsspec.filesystem("memory")
    store.put(f"{photos}/", "/bucket/photos/", recursive=True)
    yield "memory://bucket/photos"
    store.rm("/bucket", recursive=True)


@pytest.fixture(scope="module")
def s3(photos: Path) -> Iterator[str]:
    """A server of S3 with the same, known by the environment as a user would have it."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    patch = pytest.MonkeyPatch()
    for name, value in (
        ("AWS_ENDPOINT_URL", f"http://{host}:{port}"),
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        patch.setenv(name, value)
    store = fsspec.filesystem("s3")
    store.mkdir("bucket")
    store.put(f"{photos}/", "bucket/photos/", recursive=True)
    store.pipe("bucket/photos/b/", b"")  # what consoles make of a folder
    yield "s3://bucket/photos"
    server.stop()
    patch.undo()
    type(store).clear_instance_cache()


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("shard-*"))}


def compare(near: Path, photos: Path, address: str, out: Path) -> None:
    """Shards to the byte; records but for where the pictures lie."""
    for name, told in (("dataset.json", "path"), ("rejected.jsonl", "name")):
        here, there = (folder / name for folder in (near, out))
        assert here.read_text().replace(str(photos), address) == there.read_text(), told
    kept = {name: data.replace(str(photos).encode(), b"") for name, data in shards(near).items()}
    found = {name: data.replace(address.encode(), b"") for name, data in shards(out).items()}
    assert kept.keys() == found.keys() and len(kept) > 8


@pytest.mark.parametrize("where", ["memory", "s3"])
def test_a_source_elsewhere_gives_the_same(
    where: str, photos: Path, near: Path, tmp_path: Path, request: pytest.FixtureRequest
):
    address = request.getfixturevalue(where)
    here, there = open_source(photos), open_source(place(address))
    assert here.digest == there.digest and here.passed == there.passed
    assert [unit.describe() for unit in here.units] == [unit.describe() for unit in there.units]
    prepare(place(address), tmp_path / "out", CODEC, SETTINGS, workers=1)
    compare(near, photos, address, tmp_path / "out")
    from jpeglm.data.open import Dataset

    assert list(Dataset(near).streams()) == list(Dataset(tmp_path / "out").streams())


def test_workers_read_elsewhere_too(s3: str, near: Path, photos: Path, tmp_path: Path):
    prepare(place(s3), tmp_path / "out", CODEC, SETTINGS, workers=2)
    compare(near, photos, s3, tmp_path / "out")


def test_one_object_is_a_source(memory: str, tmp_path: Path):
    for name, count in (("set.tar", 20), ("table.parquet", 20), ("b/01 x.jpg", 1)):
        assert open_source(place(f"{memory}/{name}")).count == count


def test_what_is_there_is_told_as_on_a_disk(memory: str):
    for name, told in (
        ("nothing", "there is no file or folder memory://bucket/photos/nothing"),
        ("ours", "is already prepared"),
        ("notes.txt", "no picture found in memory://bucket/photos/notes.txt"),
    ):
        with pytest.raises(InputError, match=told):
            open_source(place(f"{memory}/{name}"))


def test_a_store_that_falls_silent_ends_the_work_and_the_next_run_goes_on(
    memory: str, near: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Pictures that could not be asked for are not set aside as if they could not be read."""
    store = type(fsspec.filesystem("memory"))
    reading, opening, left = store.cat_file, store.open, [0]

    def silent(call):
        def asked(self, path, *rest, **more):
            left[0] -= 1
            if left[0] < 0:
                raise TimeoutError("timed out")
            return call(self, path, *rest, **more)

        return asked

    out = tmp_path / "out"
    monkeypatch.setattr(store, "cat_file", silent(reading))
    monkeypatch.setattr(store, "open", silent(opening))
    for wanted in (15, 20):
        left[0] = wanted
        with pytest.raises(Unreachable, match=r"the store of memory://.* does not answer"):
            prepare(place(memory), out, CODEC, SETTINGS, workers=1)
    monkeypatch.undo()
    assert 0 < len(shards(out)) < len(shards(near)) and not (out / "dataset.json").exists()
    prepare(place(memory), out, CODEC, SETTINGS, workers=1)
    compare(near, photos, memory, out)


def test_a_table_and_a_tar_pass_a_silent_store_on(memory: str, monkeypatch: pytest.MonkeyPatch):
    """Through pyarrow, tarfile and the decompressors."""
    units = open_source(place(memory)).units

    def silent(self, *rest):
        raise PermissionError("expired")

    monkeypatch.setattr(fsspec.implementations.memory.MemoryFile, "read", silent)
    kinds = {type(unit).__name__ + getattr(unit, "file", "") for unit in units}
    assert len(kinds) == 5
    for unit in units:
        if hasattr(unit, "file"):
            with pytest.raises(Unreachable, match=r"is refused \(expired\)"):
                list(unit.read())
    for name in ("set.tar", "set.tar.gz", "table.parquet"):
        with pytest.raises(Unreachable, match="is refused"):
            open_source(place(f"{memory}/{name}"))


def told(*words: str, **environ: str) -> str:
    """The last line that a command writes, which fails."""
    command = [sys.executable, "-m", "jpeglm", *words]
    own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    ended = subprocess.run(command, capture_output=True, text=True, env=own | environ)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr, ended.stderr
    return ended.stderr.strip()


def test_addresses_that_nothing_reads(tmp_path: Path):
    out = str(tmp_path / "out")
    assert "fsspec does not know" in told("prepare", "zzz://bucket/x", out)
    if importlib.util.find_spec("gcsfs") is None:
        assert told("prepare", "gs://bucket/x", out).endswith("run: pip install gcsfs")


def test_the_extra_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "upath", None)
    with pytest.raises(InputError, match=r"what reads it is missing; run: pip install .*remote"):
        place("s3://bucket/x")
    assert place("photos") == Path("photos") and place("file:///a/b") == Path("/a/b")


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({}, r"s3://bucket/x needs credentials and there are none; set AWS_ACCESS_KEY_ID"),
        (
            {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"},
            r"the store of s3://bucket/x does not answer .*; check the network and the endpoint",
        ),
    ],
    ids=["no credentials", "nobody there"],
)
def test_a_store_that_cannot_be_asked(environ: dict[str, str], sentence: str, tmp_path: Path):
    pytest.importorskip("s3fs")
    usual = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
             "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"), "HOME": str(tmp_path),
             "AWS_CONFIG_FILE": str(tmp_path / "none"), "AWS_MAX_ATTEMPTS": "1"}  # fmt: skip
    found = told("prepare", "s3://bucket/x", str(tmp_path / "out"), **(usual | environ))
    assert re.search(sentence, found) and not (tmp_path / "out").exists()


def test_credentials_that_are_refused(s3: str):
    """As S3 answers it: a code 403, which its library makes a PermissionError."""
    from botocore.exceptions import ClientError
    from s3fs.errors import translate_boto_error

    error = {"Error": {"Code": "InvalidAccessKeyId", "Message": "no such key"}}
    refused = translate_boto_error(ClientError(error, "ListObjectsV2"))
    told = r"is refused \(no such key\); check the credentials"
    with pytest.raises(Unreachable, match=told), reaching(place(s3)):
        raise refused


def test_a_connection_that_never_comes_says_what_to_check(memory: str):
    """As one does that is not answered; botocore's own kind of it is no TimeoutError."""
    failures = pytest.importorskip("botocore.exceptions")
    url = "http://10.255.255.1/"
    for kind in (failures.ConnectTimeoutError, failures.ReadTimeoutError):
        told = r"does not answer \(.*10\.255.*\); check the network and the endpoint"
        with pytest.raises(Unreachable, match=told), reaching(place(memory)):
            raise kind(endpoint_url=url, error="late")


@pytest.mark.parametrize("kind", [InputError, Unreachable])
def test_a_sentence_stays_what_it_is(memory: str, kind: type[InputError]):
    """A file that cannot be read is set aside, a silent store ends the work: neither becomes the
    other on its way through what asked."""
    with pytest.raises(InputError) as met, reaching(place(memory)):
        raise kind("told")
    assert type(met.value) is kind and str(met.value) == "told"


def fetched(address: str, folder: Path) -> Path:
    """A copy on this machine."""
    path = place(address)
    path.fs.get(f"{path.path}/", f"{folder}/", recursive=True)
    return folder


def same_files(one: Path, other: Path) -> None:
    names = [
        {
            path.relative_to(folder): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
        for folder in (one, other)
    ]
    assert names[0] == names[1] and len(names[0]) > 20


@pytest.mark.parametrize("where", ["memory", "s3"])
@pytest.mark.parametrize("workers", [1, 2])
def test_shards_elsewhere_are_those_of_a_disk(
    where: str, workers: int, photos: Path, near: Path, tmp_path: Path,
    request: pytest.FixtureRequest
):  # fmt: skip
    """With their tokens and index, to the byte; in processes as well, which memory is not shared
    with; a second run finds all done, and one that lost something makes it again."""
    if (where, workers) == ("memory", 2):
        pytest.skip("each process has a memory of its own")
    from jpeglm.data.loader import load_tokens
    from jpeglm.data.open import Dataset
    from jpeglm.tokenizer import Tokenizer

    address = request.getfixturevalue(where).replace("photos", f"data-{workers}")
    streams = [stream for _, stream, *_ in Dataset(near).streams("train")]
    tokenizer = Tokenizer.train(streams, CODEC, "jpeg-symbols", 240)
    here, out = tmp_path / "here", place(address)
    prepare(photos, here, CODEC, SETTINGS, tokenizer=tokenizer, workers=1)
    prepare(photos, out, CODEC, SETTINGS, tokenizer=tokenizer, workers=workers)
    copy = fetched(address, tmp_path / "copy")
    same_files(here, copy)
    assert len(load_tokens(copy, tokenizer, "train")) == len(streams)
    written = out.fs.info(f"{out.path}/shard-00000.parquet")
    prepare(photos, out, CODEC, SETTINGS, tokenizer=tokenizer, workers=workers)
    again = out.fs.info(f"{out.path}/shard-00000.parquet")
    for name in ("created", "LastModified"):
        assert written.get(name) == again.get(name)
    shards_lost = ["shard-00001.parquet", "shard-00002.tokens.safetensors", "dataset.json"]
    for number, lost in enumerate((shards_lost, ["tokens-index.safetensors"])):
        for name in lost:
            (out / name).unlink()
        prepare(photos, out, CODEC, SETTINGS, tokenizer=tokenizer, workers=workers)
        same_files(here, fetched(address, tmp_path / f"again-{number}"))
    with pytest.raises(InputError, match=r"quality 25 is now 50"):
        prepare(photos, out, make_codec({**CODEC.to_dict(), "quality": 50}), SETTINGS)


def test_a_kill_loses_no_object(s3: str, photos: Path, near: Path, tmp_path: Path):
    """SIGKILL while shards are written; the same command then leaves what is left without one."""
    address = s3.replace("photos", "killed")
    out = place(address)
    words = [sys.executable, "-m", "jpeglm", "prepare", s3, address, "--size", "32", "--quality",
             "25", "--validation", "0.3", "--unit-size", "2", "--workers", "1"]  # fmt: skip
    running = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while len(shard_names(out)) < 3:
        assert time.monotonic() < until and running.poll() is None
        time.sleep(0.02)
    running.kill()
    running.wait()
    assert 3 <= len(shard_names(out)) < 30 and "dataset.json" not in names_in(out)
    subprocess.run(words, check=True, capture_output=True)
    whole = place(s3.replace("photos", "whole"))
    settings = PrepareConfig(validation=0.3, unit_size=2)
    codec = make_codec(json.loads(out.fs.cat_file(f"{out.path}/prepare.json"))["codec"])
    prepare(place(s3), whole, codec, settings, workers=1)
    same_files(fetched(address, tmp_path / "killed"), fetched(str(whole), tmp_path / "whole"))


def shard_names(folder: Path) -> list[str]:
    return [name for name in names_in(folder) if name.startswith("shard-")]


def test_nothing_of_the_users_is_written_over_elsewhere(memory: str, photos: Path):
    out = place(memory.replace("photos", "mine"))
    out.fs.pipe_file(f"{out.path}/dataset.json", b"mine")
    with pytest.raises(InputError, match=r"mine/dataset\.json was not written by jpeglm here"):
        prepare(photos, out, CODEC, SETTINGS)
    assert out.fs.cat_file(f"{out.path}/dataset.json") == b"mine"
    with pytest.raises(InputError, match=r"notes\.txt is a file, but a folder is to be written"):
        prepare(photos, place(f"{memory}/notes.txt"), CODEC, SETTINGS)
    with pytest.raises(InputError, match="holds the pictures"):
        prepare(place(memory), place(memory), CODEC, SETTINGS)


def test_a_folder_of_another_kind_elsewhere(
    memory: str, photos: Path, monkeypatch: pytest.MonkeyPatch
):
    """Is refused; one that cannot be asked what it is, is not taken for an empty one."""
    out = place(memory.replace("photos", "run"))
    record = b'{"settings": {}, "parameters": 1}'
    out.fs.pipe_file(f"{out.path}/config.json", record)
    with pytest.raises(InputError, match="run holds a training run; give another folder"):
        prepare(photos, out, CODEC, SETTINGS)
    with pytest.raises(ZeroDivisionError), staged(out / "config.json", b"new"):
        raise ZeroDivisionError
    assert out.fs.cat_file(f"{out.path}/config.json") == record

    def silent(*_, **__):
        raise TimeoutError("timed out")

    for name in ("cat_file", "open"):
        monkeypatch.setattr(type(out.fs), name, silent)
    with pytest.raises(Unreachable, match="does not answer"):
        kind_of(out)


def test_a_bucket_that_is_not_there_is_named(s3: str, photos: Path):
    with pytest.raises(Unreachable, match=r"s3://nobodys/data/prepare\.json.*bucket"):
        prepare(photos, place("s3://nobodys/data"), CODEC, SETTINGS)


def test_codecs_with_files_of_their_own_stay_near(memory: str, photos: Path):
    palette = np.zeros((4, 3), np.uint8)
    from jpeglm.codecs.pixels import PixelsCodec, PixelsConfig

    codec = PixelsCodec(PixelsConfig(8, 8, 4), palette)
    with pytest.raises(InputError, match="needs its own files beside the shards"):
        prepare(photos, place(memory.replace("photos", "pixels")), codec, SETTINGS)


VERBS = (
    ("train", "s3://bucket/data", "--steps", "1"),
    ("train", "data", "--init", "s3://bucket/model", "--steps", "1"),
    ("train-tokenizer", "s3://bucket/data"),
    ("check", "s3://bucket/a.jpg"),
    ("complete", "gs://bucket/a.jpg"),
    ("evaluate", "likelihood", "s3://bucket/data"),
    ("export", "--checkpoint", "s3://bucket/model", "--out", "hf"),
    ("import", "s3://bucket/model", "--out", "mine"),
    ("prepare", "photos", "data", "--like", "s3://bucket/data"),
    ("generate", "--out", "s3://bucket/drawn"),
    ("serve", "--checkpoint", "s3://bucket/model"),
    ("train-tokenizer", "photos", "--out", "s3://bucket/tokenizer"),
)


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_verbs_on_this_machine_say_so(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str]
):  # fmt: skip
    """And make no folder `s3:` in which what was made would lie unseen."""
    from jpeglm.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["jpeglm", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr().err.strip()
    address = next(word for word in words if "://" in word)
    assert ended.value.code == 1 and "copy it to a disk first" in told.splitlines()[-1]
    assert f"{address} lies elsewhere" in told and not list(tmp_path.iterdir())


def test_an_address_as_a_path_makes_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """pathlib drops a slash: from Python, too, nothing is written to `s3:` unless it is there."""
    from jpeglm.folders import CHECKPOINT, claim
    from jpeglm.places import checkpoint_folder

    monkeypatch.chdir(tmp_path)
    for name in ("s3://bucket/x", "gs://bucket/x"):
        with pytest.raises(InputError, match=f"^{name} lies elsewhere"):
            claim(Path(name), CHECKPOINT)
        with pytest.raises(InputError, match=f"^{name} lies elsewhere"):
            checkpoint_folder(name)
    for name in ("C:/photos", "photos:/x", "s3:x"):
        (tmp_path / "photos:").mkdir(exist_ok=True)
        claim(Path(name), CHECKPOINT)


ODD = ("/lead.png", "dbl//i.png", "http:/m.png", "http://m.png", "s3:/x.png", "data:y.png",
       "per%20cent/d%2f.png", "q?x/e.png", "h#x/f.png", "br[1]/g*.png", "back\\slash.png",
       " sp ace/é .png", "plus+/h.png", "C:/w.png")  # fmt: skip


@pytest.mark.parametrize("where", ["memory", "s3"])
def test_names_that_read_like_addresses(where: str, request: pytest.FixtureRequest):
    """Each gives its own picture; one that cannot be asked for is set aside, not another read."""
    home = place(request.getfixturevalue(where).replace("photos", "odd"))
    if where == "memory":  # it keeps no doubled slashes itself
        kept = tuple(name for name in ODD if "//" not in f"/{name}")
    else:
        kept = ODD
    for number, name in enumerate(kept):
        home.fs.pipe_file(f"{home.path}/{name}", picture(number))
    home.fs.pipe_file(f"{home.path}/q?x/e.png::a.png", picture(99))
    source = open_source(home, unit_size=3)
    items = {item.key: item.data for unit in source.units for item in unit.read()}
    assert items == {name: picture(number) for number, name in enumerate(kept)}
    ((name, reason),) = source.rejected
    assert name == f"{home}/q?x/e.png::a.png" and "joins addresses" in reason


def test_schemes_are_read_as_they_are_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert str(place("MEMORY://bucket/x")) == "memory://bucket/x"
    assert place("FILE:///a/b") == Path("/a/b") and place("://x") == Path("://x")
    with pytest.raises(Unreachable, match=r"the store of ftp://127\.0\.0\.1:9/x does not answer"):
        place("ftp://127.0.0.1:9/x")


def test_a_file_that_is_too_long_is_cut_and_told(memory: str):
    from jpeglm.files import read_bytes

    path = place(memory.replace("photos", "long") + "/x.bin")
    path.fs.pipe_file(path.path, b"0123456789a")
    assert read_bytes(path, 11) == b"0123456789a"
    with pytest.raises(InputError, match="more than the"):
        read_bytes(path, 10)
