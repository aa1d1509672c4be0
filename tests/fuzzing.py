"""Mutants of every kind of file that jpeglm reads, and what reading one may do: end in an answer or
in an `InputError`, within seconds and without a gigabyte.

    make fuzz MINUTES=10            (or: python -m tests.fuzzing --minutes 10 --seed 0 [--only tar])

Each target makes its seed files in code and mutates them with a generator of a given number, so any
failure is named by (target, number) and found again. Cases run in a child process, whose memory is
limited; one that takes more than SECONDS is stopped by its parent.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import random
import resource
import sys
import tarfile
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jpeglm.config import InputError

WARMING = 12
"""Mutants that a child reads first: what is imported and compiled once is no file's time or growth,
and the first of them may end before they come to the kernels."""
SECONDS = 10
GROWTH = 1 << 30
VALUES = [
    None, True, "", "x", "64", [], [1], {}, {"a": 1}, -1, 0, 1, 3, 0.5, -0.0, 64.0, 1e9, 10**9,
    2**31, 2**63, 10**30, 10**400, float("nan"), float("inf"), float("-inf"), "\ud800", "\0",
    "é" * 300, [[[[1]]]], "../../etc/passwd", "/dev/zero",
]  # fmt: skip


def flip(rng: random.Random, data: bytes) -> bytes:
    """A few bytes set, removed, repeated or cut off."""
    found = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        if not found:
            break
        at = (
            rng.randrange(len(found)) if rng.random() < 0.5 else rng.randrange(min(400, len(found)))
        )
        kind = rng.randrange(7)
        if kind == 0:
            found[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            found[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
        elif kind == 2:
            del found[at : at + rng.choice([1, 4, 100])]
        elif kind == 3:
            found[at:at] = found[at : at + rng.choice([1, 4, 100])]
        elif kind == 4:
            del found[at:]
        elif kind == 5:
            size = rng.choice([2, 4, 8])
            found[at : at + size] = rng.choice([b"\xff", b"\0", b"\x7f"]) * size
        else:
            found[at:at] = rng.randbytes(rng.choice([1, 4, 64]))
    return bytes(found)


def change_json(rng: random.Random, value: Any) -> bytes:
    """A JSON document with one place changed, removed, nested or named twice."""
    value = json.loads(json.dumps(value))
    places: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        node = waiting.pop()
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                waiting.append(node[key])
    # Long vocabularies would otherwise hide the few keys that matter.
    groups: dict[int, list[tuple[Any, Any]]] = {}
    for node, key in places:
        groups.setdefault(id(node), []).append((node, key))
    group = rng.choice(list(groups.values())[: rng.choice([3, 10, len(groups)])])
    node, key = rng.choice(group)
    kind = rng.randrange(8)
    if kind == 0:
        del node[key]
    elif kind == 1 and isinstance(node, dict):
        node[rng.choice(["", "x", "codec", "\ud800"])] = node.pop(key)
    elif kind == 2 and isinstance(node, list):
        node.insert(rng.randrange(len(node)), node[key])
    elif kind == 3:
        other, place = rng.choice(places)
        node[key] = json.loads(json.dumps(other[place])) if other is not node else None
    else:
        node[key] = rng.choice(VALUES)
    text = json.dumps(value)
    if rng.random() < 0.05:
        text = rng.choice(['{"a":' * 5000 + "1" + "}" * 5000, "[" * 100_000, text[:-1], text * 2,
                           '{"codec": 1, "codec": 2}', "9" * 5000, "null", '"x"', ""])  # fmt: skip
    return text.encode("utf-8", "surrogatepass")


class Case:
    """What a target works with: a scratch folder, and its seed files made once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rng = np.random.default_rng(0)
        smooth = rng.normal(0, 8, (64, 96, 3)).cumsum(0).cumsum(1) + 128
        self.picture = Image.fromarray(np.clip(smooth, 0, 255).astype(np.uint8))
        self.made: dict[str, Any] = {}

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self.made:
            self.made[name] = make()
        return self.made[name]

    def file(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def check_jpeg(case: Case, rng: random.Random) -> None:
    from jpeglm.codecs.check import check_file

    def make() -> list[bytes]:
        options = [{}, {"subsampling": "4:4:4"}, {"restart_marker_blocks": 2}, {"quality": 100}]
        colour = [saved(case.picture, "JPEG", **o) for o in options]
        return [*colour, saved(case.picture.convert("L"), "JPEG")]

    verdict = check_file(flip(rng, rng.choice(case.once("jpegs", make))), {})
    assert verdict.valid or verdict.why


def check_mp4(case: Case, rng: random.Random) -> None:
    from jpeglm.codecs.avc import AvcCodec, AvcConfig, complaints

    codec = case.once("avc", lambda: AvcCodec(AvcConfig(64, 48, 3, 8.0)))
    noise = np.random.default_rng(1).integers(0, 256, codec.shape, dtype=np.uint8)
    film = case.once("clip", lambda: codec.wrap(codec.encode(noise)))
    data = flip(rng, film)
    verdict = codec.check(data)
    assert verdict.valid or verdict.why
    if verdict.valid:
        assert not complaints(codec, codec.unwrap(data))


def read_film(case: Case, rng: random.Random) -> None:
    from jpeglm.codecs.avc import AvcCodec, AvcConfig
    from jpeglm.codecs.clips import whole_clips

    codec = case.once("avc", lambda: AvcCodec(AvcConfig(64, 48, 3, 8.0)))
    noise = np.random.default_rng(1).integers(0, 256, codec.shape, dtype=np.uint8)
    film = case.once("clip", lambda: codec.wrap(codec.encode(noise)))
    for _ in whole_clips(flip(rng, film), codec.config, limit=2):
        pass


def read_picture(case: Case, rng: random.Random) -> None:
    from jpeglm.codecs.images import open_image

    def make() -> list[bytes]:
        p = case.picture
        plain = [saved(p, kind) for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")]
        modes = [saved(p.convert(mode), "PNG") for mode in ("L", "1", "P", "RGBA", "LA", "I;16")]
        return [*plain, *modes, saved(p.convert("CMYK"), "JPEG"), saved(p.convert("F"), "TIFF")]

    open_image(flip(rng, rng.choice(case.once("pictures", make))))


def read_tar(case: Case, rng: random.Random) -> None:
    import gzip

    def make() -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            data = saved(case.picture, "JPEG")
            for name, content in (("a.jpg", data), ("a.cls", b"1"), ("b/c.jpg", data)):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        return out.getvalue()

    data = case.once("tar", make)
    packed = rng.random() < 0.3
    mutant = flip(rng, gzip.compress(data) if packed else data)
    prepare_source(case, "x.tar.gz" if packed else "x.tar", mutant)


def read_parquet(case: Case, rng: random.Random) -> None:
    def make() -> bytes:
        import pyarrow as pa
        import pyarrow.parquet as pq

        image = {"bytes": saved(case.picture, "JPEG"), "path": "a.jpg"}
        table = pa.table({"image": [image] * 2, "label": [0, 1]})
        out = io.BytesIO()
        pq.write_table(table, out)
        return out.getvalue()

    data = case.once("parquet", make)
    mutant = flip(rng, data)
    if rng.random() < 0.5:  # the footer is where it matters
        mutant = data[:-400] + flip(rng, data[-400:-8]) + data[-8:]
    prepare_source(case, "x.parquet", mutant)


def prepare_source(case: Case, name: str, data: bytes) -> None:
    import shutil

    from jpeglm.codecs import JpegCodec
    from jpeglm.config import JpegConfig
    from jpeglm.data.prepare import prepare

    home, out = case.folder / "source", case.folder / "shards"
    for folder in (home, out):
        shutil.rmtree(folder, ignore_errors=True)
    home.mkdir()
    (home / name).write_bytes(data)
    prepare(home / name, out, JpegCodec(JpegConfig(32, 32)), workers=1)


def read_safetensors(case: Case, rng: random.Random) -> None:
    from jpeglm.checkpoint import read_safetensors

    def make() -> bytes:
        from safetensors.numpy import save

        arrays = {"a": np.ones((2, 3), np.float32), "b": np.zeros(5, np.int64), "c": np.ones(0)}
        return save(arrays)

    data = case.once("safetensors", make)
    size = int.from_bytes(data[:8], "little")
    mutant = flip(rng, data)
    if rng.random() < 0.7:
        header = change_json(rng, json.loads(data[8 : 8 + size]))
        mutant = len(header).to_bytes(8, "little") + header + data[8 + size :]
    arrays, _ = read_safetensors(case.file("x.safetensors", mutant))
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        theirs = load(mutant)
    except SafetensorError as error:
        raise AssertionError(f"safetensors itself refuses it: {error}") from error
    assert {n: a.tobytes() for n, a in arrays.items()} == {
        n: a.tobytes() for n, a in theirs.items()
    }


def read_checkpoint(case: Case, rng: random.Random) -> None:
    """One file of a whole folder changed; what still loads must draw a picture."""
    import shutil

    from jpeglm.checkpoint import load_checkpoint
    from jpeglm.generation.loading import make_engine
    from jpeglm.generation.model import Model
    from jpeglm.places import shipped_checkpoint

    folder = case.folder / "checkpoint"
    if not folder.exists():
        shutil.copytree(shipped_checkpoint("cifar10"), folder)
    names = ("config.json", "generation_config.json", "tokenizer.json", "codec.json", "weights")
    name = rng.choice(names)
    file = folder / ("model.safetensors" if name == "weights" else name)
    before = case.once(name, file.read_bytes)
    if name == "weights":
        size = 8 + int.from_bytes(before[:8], "little")
        header = change_json(rng, json.loads(before[8:size]))
        mutant = len(header).to_bytes(8, "little") + header + before[size:]
        if rng.random() < 0.3:
            mutant = before[: size + 2000] + b"\x80\x7f\xc0\xff" * 50 + before[size + 2200 :]
    elif rng.random() < 0.8:
        mutant = change_json(rng, json.loads(before))
    else:
        mutant = flip(rng, before)
    try:
        file.write_bytes(mutant)
        found = load_checkpoint(folder)
        Model(found, make_engine(found, threads=1)).generate(1, max_tokens=None)
    finally:
        file.write_bytes(before)


def import_model(case: Case, rng: random.Random) -> None:
    """One file changed of a folder in the form of JPEG-LM's authors; what is still imported loads
    and draws."""
    import sentencepiece
    import torch

    from jpeglm.checkpoint import load_checkpoint
    from jpeglm.codecs import JpegCodec
    from jpeglm.config import JpegConfig
    from jpeglm.generation.loading import make_engine
    from jpeglm.generation.model import Model
    from jpeglm.integrations import importing
    from jpeglm.models.llama import preset, tensors

    folder = case.folder / "released"

    def make() -> dict[str, bytes]:
        folder.mkdir()
        codec = JpegCodec(JpegConfig(32, 32, restart_interval=1))
        noise = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
        texts = ["".join(map(chr, range(0x2800, 0x2900)))]
        texts += ["".join(chr(0x2800 + b) for b in codec.encode(Image.fromarray(n))) for n in noise]
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts), model_prefix=str(folder / "tokenizer"), vocab_size=280,
            model_type="bpe", character_coverage=1.0, add_dummy_prefix=False, minloglevel=3,
            normalization_rule_name="identity", max_sentence_length=1 << 20,
        )  # fmt: skip
        (folder / "tokenizer.vocab").unlink()
        shape = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
        config = preset("2m", 280, 1024, num_hidden_layers=1, **shape)
        (folder / "config.json").write_text(json.dumps(config))
        state = {name: torch.randn(size) for name, size in tensors(config).items()}
        torch.save(state, folder / "part.bin")
        index = {"weight_map": dict.fromkeys(state, "part.bin")}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
        return {file.name: file.read_bytes() for file in folder.iterdir()}

    files = case.once("released", make)
    name = rng.choice(sorted(files))
    file, before = folder / name, files[name]
    out = case.folder / "imported"
    try:
        if name.endswith(".json") and rng.random() < 0.8:
            file.write_bytes(change_json(rng, json.loads(before)))
        else:
            file.write_bytes(flip(rng, before))
        importing.import_model(str(folder), out, {"width": 32, "height": 32})
        found = load_checkpoint(out)
        Model(found, make_engine(found, threads=1)).generate(1, max_tokens=None)
    finally:
        file.write_bytes(before)


TARGETS: dict[str, Callable[[Case, random.Random], None]] = {
    "check": check_jpeg,
    "check-mp4": check_mp4,
    "film": read_film,
    "picture": read_picture,
    "tar": read_tar,
    "parquet": read_parquet,
    "safetensors": read_safetensors,
    "checkpoint": read_checkpoint,
    "import": import_model,
}


def run_case(target: str, number: int, case: Case) -> None:
    """One mutant; an `InputError` of one sentence is what it may end in."""
    try:
        TARGETS[target](case, random.Random(f"{target} {number}"))
    except InputError as error:
        assert str(error) and "\n" not in str(error).strip(), repr(str(error))
        str(error).encode()  # it will be printed


def timed(target: str, number: int, case: Case) -> float:
    """Seconds of a case."""
    before = time.perf_counter()
    run_case(target, number, case)
    return time.perf_counter() - before


def _work(target: str, numbers: Any, results: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        case = Case(Path(folder))
        for number in range(-WARMING, 0):  # these are not judged
            with suppress(Exception):
                run_case(target, number, case)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + GROWTH
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        for number in iter(numbers.get, None):
            try:
                seconds = timed(target, number, case)
                if seconds > SECONDS:  # again, lest kernels were compiled meanwhile
                    seconds = timed(target, number, case)
                wrong = f"{seconds:.1f} s" if seconds > SECONDS else ""
            except BaseException:
                wrong = traceback.format_exc()
            results.put((number, wrong))


class Worker:
    """A child that works through numbers, and is replaced when it hangs or dies."""

    def __init__(self, target: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.numbers, self.results = context.Queue(), context.Queue()
        self.process = context.Process(target=_work, args=(target, self.numbers, self.results))
        self.process.start()
        self.fresh = True

    def run(self, number: int) -> str | None:
        """What went wrong, "" if nothing; None if the child is gone and must be replaced."""
        self.numbers.put(number)
        end = time.monotonic() + 3 * SECONDS + (120 if self.fresh else 0)
        self.fresh = False
        while time.monotonic() < end and self.process.is_alive():
            try:
                return self.results.get(timeout=0.5)[1]
            except Exception:  # queue.Empty: still at work
                continue
        return None

    def close(self) -> None:
        self.process.kill()
        self.process.join()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--only", choices=TARGETS, action="append")
    options = parser.parse_args()
    targets = options.only or list(TARGETS)
    failed = 0
    for target in targets:
        end = time.monotonic() + 60 * options.minutes / len(targets)
        worker, number, bad = Worker(target), options.seed, 0
        while time.monotonic() < end:
            wrong = worker.run(number)
            if wrong is None:
                wrong = f"hung or died (exit code {worker.process.exitcode})"
                worker.close()
                worker = Worker(target)
            if wrong:
                bad += 1
                print(f"{target} {number}: {wrong}", flush=True)
            number += 1
        worker.close()
        failed += bad
        print(f"{target}: {number - options.seed} mutants, {bad} failed", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
