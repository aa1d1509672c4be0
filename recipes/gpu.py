"""Ten minutes of a GPU, well used: is everything right there, models that ship, the figures.

    python recipes/gpu.py --minutes 9 --only a b --out OUT     check, then train the photo model
    python recipes/gpu.py --minutes 4 --only c --out OUT       benchmarks (again: what is missing)
    python recipes/gpu.py --only d --words avatars emoji --pack data/gpu-words --out OUT
    python recipes/gpu.py --dry                                all of it on a CPU, tiny
    python recipes/gpu.py --pixels 128 --only b --out OUT      larger pictures, another time

    a  right     a training step in bfloat16 against float32, compiled against plain; attention
                 kernels timed, the fastest is then used; logits and pictures against the CPU's
    b  photos    a million crops, cut and coded by all cores while a runs, then `jpeglm train`
    c  speed     benchmarks/device.py
    d  words     models that draw to captions, all at once: a small one leaves most of a GPU idle;
                 avatars:1 is that of seed 1

The machine needs no network and no installation beside torch, transformers and accelerate; the
package is taken from this checkout, the pictures from what `recipes/data/pack.py` made. Where numba
is missing the pack's token ids take the pictures' place, and what needs the grammar is left out.
Each part is a process with its own limit, and a killed call loses nothing: OUT always holds what is
there so far, WORK lets the next call on the same machine go on.

    OUT/gpu.json     what was found, and how each part ended
    OUT/right.json   each check: measured, required, holds
    OUT/photos.tar   config.json, metrics.jsonl, dataset.json, model/: for recipes/photos.py --run
    OUT/photos.png   64 samples
    OUT/NAME-SEED.tar  the same of each model of d
    OUT/bench-device-KIND.json, OUT/gpu.log
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
try:
    import jpeglm  # noqa: F401
except ImportError:
    sys.path.insert(0, str(ROOT / "src"))

from jpeglm.config import InputError  # noqa: E402
from jpeglm.files import atomic_write, read_json, write_json  # noqa: E402

NEEDED = ("torch", "transformers", "accelerate", "safetensors", "numpy", "Pillow", "tensorboard")
FOR_PICTURES = ("numba", "pyarrow")
SECONDS = {"a": 150.0, "data": 240.0, "c": 240.0}
"""Limits of the parts; b has what is left, and c at most that when both are asked for. A dry run
knows but that of the call."""
ATTENTION = ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION", "MATH")
"""torch's kernels of attention."""
ENDING = 25.0
"""Seconds that a training has to save, draw and pack after it is told to stop."""


DRY_MINUTES = 0.1


class Size:
    """What b trains: by arithmetic and a short run (recipes/README.md)."""

    preset = "5m"  # 10.4 MB in bfloat16, of 12 that a shipped model may have
    init = ""  # the shipped checkpoint whose weights, shape and tokenizer it begins with
    pixels = 64
    crops = 400  # of each of some 4,500 pictures, fewer where a source would give more than
    balance = 0.2
    row = 1024  # tokens
    packing, fim = "rows", 0.5
    batch = 65_536  # tokens a step
    rate = 12e-3
    warmup = 300
    ema = 0.999
    every = 1000  # steps between evaluations
    held_out = 1000  # of the photographs all 510 crops


class Large(Size):
    """Pictures of 128 pixels, in a vocabulary of their own."""

    pixels, crops, row = 128, 120, 4096


class Words(Size):
    """Drawings of 64 pixels with their captions, every second one with a hole; 4.2 MB of 5."""

    preset, row = "2m", 2048
    batch, rate, warmup, every = 32_768, 11e-3, 100, 500
    steps = 14_000


class Emoji(Words):
    """From the weights of the avatars, which know drawings and words: after four minutes of a core
    2,964 bits, random ones 4,504. Nothing held out chooses the best step: bits of concepts never
    drawn are fewest after 2,500 steps, when those that were drawn are hardly learnt yet
    (docs/log.md)."""

    steps, held_out, init = 12_000, 0, "avatars"


class Tiny(Size):
    """The same on a CPU in seconds."""

    preset, crops, row, batch, rate, warmup, ema, every, held_out = (
        "1m", 2, 1024, 2048, 3e-3, 5, 0.9, 4, 8,
    )  # fmt: skip
    balance = 1.0  # its pictures lie in one folder


class TinyWords(Tiny):
    steps = 8


class TinyEmoji(TinyWords):
    init = Emoji.init


def chosen_size(pixels: int, dry: bool) -> type[Size]:
    return Tiny if dry else {64: Size, 128: Large}[pixels]


def look() -> dict[str, Any]:
    """What this machine has; `way` is `pictures`, or `tokens` where they cannot be cut here."""
    import torch

    from jpeglm.environment import cores, processor
    from jpeglm.kernels import COMPILED

    found: dict[str, Any] = {"python": sys.version.split()[0], "cores": cores()}
    missing = []
    for name in NEEDED + FOR_PICTURES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            missing.append(name)
    if "numba" in found and not COMPILED:
        missing.append("numba")
        found["numba"] += ", which does not work with this numpy"
    cuda = torch.cuda.is_available()
    found["device"] = torch.cuda.get_device_name() if cuda else processor()
    found["missing"] = missing
    found["way"] = "tokens" if set(missing) & set(FOR_PICTURES) else "pictures"
    return found


def say(found: dict[str, Any]) -> str:
    """The first line of a call."""
    told = ", ".join(f"{name} {found[name]}" for name in NEEDED + FOR_PICTURES if name in found)
    way = {
        "pictures": "pictures are cut and coded here",
        "tokens": f"without {' and '.join(found['missing'])} the pack's tokens take their place",
    }[found["way"]]
    return f"{found['device']}, {found['cores']} cores, Python {found['python']}, {told}: {way}"


# Part a


class Checks:
    """OUT/right.json, a check at a time."""

    def __init__(self, file: Path) -> None:
        self.file, self.rows = file, dict[str, Any]()

    def add(self, name: str, measured: Any, required: str, holds: bool) -> None:
        self.rows[name] = {"measured": measured, "required": required, "holds": bool(holds)}
        write_json(self.file, self.rows)
        print(f"{'holds' if holds else 'FAILS'}: {name}: {measured} ({required})", flush=True)


def right(home: Path, device: str, dry: bool) -> None:
    """Part a, into HOME/right.json. The rule: in float32 the device gives the CPU's logits to
    rounding, so that nearly all pictures of a seed are the same to the byte; one draw that falls
    within rounding of a border sends a picture its own way. In bfloat16 pictures may all differ.
    Whatever the precision, each is a whole valid file."""
    import torch

    from jpeglm.kernels import COMPILED

    checks = Checks(home / "right.json")
    # Compiles the CPU's engine, half a minute the first time, while the device is looked at.
    code = "import jpeglm; jpeglm.load(precision='float32')" if COMPILED else "pass"
    compiling = subprocess.Popen([sys.executable, "-c", code])
    torch.manual_seed(0)
    for part in (check_training, check_attention, check_pictures):
        if part is check_pictures:
            compiling.wait()
        try:
            part(checks, device, dry)
        except Exception as error:  # one lack must not hide what the others say
            checks.add(part.__name__, f"{type(error).__name__}: {error}"[:300], "runs", False)


def check_training(checks: Checks, device: str, dry: bool) -> None:
    import torch

    from jpeglm.models.llama import build, preset
    from jpeglm.training.job import Objective

    size = Tiny if dry else Size
    shape = preset(size.preset, 1024, size.row, **({"num_hidden_layers": 1} if dry else {}))
    ids = torch.randint(0, 1000, (size.batch // size.row // (1 if dry else 4), size.row))
    ids = ids.to(device)
    inputs, targets = ids[:, :-1], ids[:, 1:].contiguous()

    def step(half: bool, compiled: bool) -> tuple[float, Any, float]:
        """(mean loss, all gradients, seconds of a repeated step)"""
        objective = Objective(build(shape, 0)).to(device)
        if compiled:
            objective.compile()
        for _ in range(2):
            started = time.perf_counter()
            objective.zero_grad()
            with torch.autocast(device.split(":")[0], torch.bfloat16, enabled=half):
                loss = objective(inputs, targets) / targets.numel()
            loss.backward()
            value = float(loss.detach())
            seconds = time.perf_counter() - started
        joined = torch.cat([p.grad.flatten().double() for p in objective.parameters()])
        return value, joined, seconds

    plain = step(False, False)
    half = step(True, False)
    near = float(torch.nn.functional.cosine_similarity(plain[1], half[1], 0))
    apart = abs(plain[0] - half[0]) / plain[0]
    checks.add("loss, bfloat16 against float32", apart, "relative, at most 0.01", apart <= 0.01)
    checks.add("gradient, bfloat16 against float32", near, "cosine, at least 0.98", near >= 0.98)
    if dry and not shutil.which("g++"):
        return
    fast = step(not dry, True)
    beside = plain if dry else half
    apart = abs(fast[0] - beside[0]) / beside[0]
    checks.add("loss, compiled against plain", apart, "relative, at most 0.01", apart <= 0.01)
    gain = beside[2] / fast[2]
    checks.add("compiled step, times as fast as plain", gain, "told", True)


def check_attention(checks: Checks, device: str, dry: bool) -> None:
    """The attention kernels of torch on the photo model's rows; the fastest is what b uses."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    rows, heads, length = (2, 2, 128) if dry else (Size.batch // Size.row, 5, Size.row)
    kind = torch.float32 if dry else torch.bfloat16
    made = torch.randn(3, rows, heads, length, 64, device=device, dtype=kind, requires_grad=True)
    times: dict[str, float] = {}
    for name in ATTENTION:
        try:
            with sdpa_kernel(getattr(SDPBackend, name)):
                for turn in range(6):
                    if turn == 1:
                        synchronize(device)
                        started = time.perf_counter()
                    out = torch.nn.functional.scaled_dot_product_attention(*made, is_causal=True)
                    out.sum().backward()
                synchronize(device)
                times[name] = (time.perf_counter() - started) / 5
        except RuntimeError:
            continue  # this device has none of the kind
    best = min(times, key=times.__getitem__)
    checks.add("attention, seconds forward and backward", times, f"{best} is used", True)
    write_json(checks.file.with_name("attention.json"), {"kernel": best})


def check_pictures(checks: Checks, device: str, dry: bool) -> None:
    import numpy as np

    from jpeglm.checkpoint import load_checkpoint
    from jpeglm.codecs.check import check_file
    from jpeglm.generation.engine_cuda import GraphEngine
    from jpeglm.generation.engine_torch import TorchEngine
    from jpeglm.generation.loading import make_engine
    from jpeglm.generation.model import Model
    from jpeglm.kernels import COMPILED
    from jpeglm.places import shipped_checkpoint

    if not COMPILED:
        print("pictures are not compared: the grammar needs numba", flush=True)
        return
    opened = load_checkpoint(shipped_checkpoint())
    count = 2 if dry else 16
    engines: dict[str, Any] = {
        "CPU": make_engine(opened, "cpu", "float32"),
        "plain": TorchEngine.from_checkpoint(opened.folder, device, "float32"),
        "device": GraphEngine.from_checkpoint(opened.folder, device, "float32"),
        "device, bfloat16": GraphEngine.from_checkpoint(opened.folder, device, "bfloat16"),
    }
    drawn = {}
    for name, engine in engines.items():
        started = time.perf_counter()
        drawn[name] = new_pictures(Model(opened, engine), count, dry)
        print(f"{name}: {count} pictures in {time.perf_counter() - started:.1f} s", flush=True)
        files = [opened.codec.wrap(stream) for stream in drawn[name].streams]
        valid = sum(check_file(file, {}).valid for file in files)
        checks.add(f"{name}: valid pictures", valid, f"all {count}", valid == count)
    ids = opened.tokenizer.encode_stream(drawn["CPU"].streams[0])[:200]
    ids = np.concatenate([[opened.tokenizer.bos], ids])
    logits = {name: engine.add([ids])[0] for name, engine in engines.items()}
    for name, most in (("plain", 2e-3), ("device", 2e-3), ("device, bfloat16", 1.0)):
        apart = float(np.abs(logits[name] - logits["CPU"]).max())
        checks.add(f"{name}: logits against the CPU's", apart, f"at most {most}", apart <= most)
    for name in ("plain", "device"):
        same = sum(a == b for a, b in zip(drawn[name].streams, drawn["CPU"].streams))
        least = 3 * count // 4
        checks.add(f"{name}: pictures equal to the CPU's", same, f"at least {least}", same >= least)


def new_pictures(model: Any, count: int, dry: bool) -> Any:
    """Pictures of seed 0; those of a dry run are short, for they keep most of a photograph."""
    from PIL import Image

    photo = Image.open(ROOT / "src" / "jpeglm" / "assets" / "astronaut.jpg")
    return model.complete(photo, 0.875 if dry else 0.0, count, seed=0, batch=count)


def synchronize(device: str) -> None:
    import torch

    if device != "cpu":
        torch.cuda.synchronize()


# Part b


def make_data(pack: Path, work: Path, way: str, size: type[Size]) -> None:
    """WORK/data: token shards, cut and coded here or unpacked."""
    out = work / "data"
    if way == "tokens":
        unpack(pack / "tokens.tar.xz", out)
        return
    from jpeglm.checkpoint import load_checkpoint
    from jpeglm.codecs import make_codec
    from jpeglm.data.open import Dataset
    from jpeglm.data.prepare import prepare
    from jpeglm.data.settings import PrepareConfig
    from jpeglm.places import shipped_checkpoint
    from jpeglm.tokenizer import Tokenizer

    tokenizer = load_checkpoint(shipped_checkpoint()).tokenizer
    # Compiles what the workers would otherwise compile all at once.
    tokenizer.encode_stream(tokenizer.codec.encode(tokenizer.codec.blank()))
    codec = make_codec(tokenizer.codec.to_dict() | {"width": size.pixels, "height": size.pixels})
    config = PrepareConfig(crops=size.crops, balance=size.balance, split="folder", unit_size=32)
    started = time.perf_counter()
    if codec.fingerprint != tokenizer.codec.fingerprint:
        prepare(pack / "photos", out, codec, config)
        some = (stream for _, stream, *_ in Dataset(out).streams("train"))
        tokenizer = Tokenizer.train(islice(some, 10_000), codec, tokenizer.alphabet.name)
    info = prepare(pack / "photos", out, codec, config, tokenizer=tokenizer)
    seconds = time.perf_counter() - started
    print(f"{info['streams']} crops cut, coded, tokenised in {seconds:.0f} s", flush=True)


def photos(
    work: Path, home: Path, minutes: float, device: str, dry: bool, size: type[Size]
) -> None:
    """Part b: train on WORK/data into WORK/run; HOME/photos.tar follows each evaluation."""
    from jpeglm.checkpoint import load_checkpoint
    from jpeglm.places import shipped_checkpoint

    data, run = work / "data", work / "run"
    made = data / "tokenizer"
    tokenizer = made if made.exists() else load_checkpoint(shipped_checkpoint()).folder
    learn(data, tokenizer, run, home / "photos.tar", size, minutes, dry)
    draw(run / "model", home / "photos.png", device, dry)


def words(pack: Path, work: Path, home: Path, named: str, minutes: float, dry: bool) -> None:
    """A model of part d: train on PACK/NAME.tar.xz into WORK/NAME-SEED."""
    name, _, seed = named.partition(":")
    seed = seed or "0"
    data = work / f"data-{name}-{seed}"
    unpack(pack / f"{name}.tar.xz", data)
    sizes = (TinyWords, TinyEmoji) if dry else (Words, Emoji)
    size = sizes[name == "emoji"]
    told, run = home / f"{name}-{seed}.tar", work / f"{name}-{seed}"
    learn(data, data / "tokenizer", run, told, size, minutes, dry, size.steps, int(seed))


def unpack(file: Path, out: Path) -> None:
    """What `recipes/data/pack.py` packed as tokens."""
    if not (out / "dataset.json").exists():
        with tarfile.open(file) as tar:
            tar.extractall(out.with_name(f"{out.name}.tmp"), filter="data")
        os.replace(out.with_name(f"{out.name}.tmp") / "tokens", out)


def learn(
    data: Path,
    tokenizer: Path,
    run: Path,
    packed: Path,
    size: type[Size],
    minutes: float,
    dry: bool,
    steps: int = 0,
    seed: int = 0,
) -> None:
    """Train into RUN, of which PACKED, what recipes/photos.py takes, follows each evaluation."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from jpeglm.tokenizer import Tokenizer
    from jpeglm.training import TrainConfig
    from jpeglm.training.lm import train

    if (run / "config.json").exists():  # a call goes on with the budget of the one before
        minutes = read_json(run / "config.json")["settings"]["minutes"]
    config = TrainConfig(
        preset=size.preset, init=size.init, minutes=minutes, steps=steps,
        learning_rate=size.rate, warmup=size.warmup, batch_tokens=size.batch,
        packing=size.packing, max_length=size.row, fim=size.fim, ema=size.ema,
        eval_every=size.every, eval_images=size.held_out, save_every=size.every,
        compile="off" if dry else "on", keep=1, seed=seed,
    )  # fmt: skip
    stamp = 0.0

    def progress(done: int, total: int | None, note: str) -> None:
        nonlocal stamp
        if done % (2 if dry else 200) == 0:
            print(f"step {done} of {total}: {note}", flush=True)
        weights = run / "model" / "model.safetensors"
        if weights.exists() and weights.stat().st_mtime != stamp:
            stamp = weights.stat().st_mtime
            pack_run(run, data, packed)

    def tell(line: str) -> None:
        print(line, flush=True)

    chosen = packed.with_name("attention.json")
    kernel = read_json(chosen)["kernel"] if chosen.exists() else ATTENTION[0]
    # The others where it does not take a shape (the held-out pictures').
    kinds = [getattr(SDPBackend, name) for name in (kernel, *ATTENTION)]
    with nullcontext() if dry else sdpa_kernel(kinds, set_priority=True):
        result = train(data, Tokenizer.load(tokenizer), run, config, progress=progress, say=tell)
    speed = result["tokens"] / max(result["seconds"], 1e-9)
    print(f"{json.dumps(result)}\n{speed:,.0f} tokens/s, all included", flush=True)
    pack_run(run, data, packed)


def pack_run(run: Path, data: Path, out: Path) -> None:
    """What recipes/photos.py takes, as one file."""
    draft = out.with_name(f".{out.name}.tmp")
    with tarfile.open(draft, "w") as tar:
        for name in ("config.json", "metrics.jsonl", "model"):
            if (run / name).exists():
                tar.add(run / name, name)
        tar.add(data / "dataset.json", "dataset.json")
    os.replace(draft, out)


def draw(model: Path, out: Path, device: str, dry: bool) -> None:
    """A sheet of samples by the engine of the device."""
    from jpeglm.checkpoint import load_checkpoint
    from jpeglm.generation.engine_cuda import GraphEngine
    from jpeglm.generation.model import Model
    from jpeglm.generation.outputs import png
    from jpeglm.generation.sheets import contact_sheet
    from jpeglm.kernels import COMPILED

    if not COMPILED:
        return
    opened = load_checkpoint(model)
    engine = GraphEngine.from_checkpoint(model, device, "float32")
    pictures = new_pictures(Model(opened, engine), 2 if dry else 64, dry)
    sheet = contact_sheet([("", image) for image in pictures.images], 16, 96)
    atomic_write(out, png(sheet))


# The call


def own(arguments: argparse.Namespace, part: str, *more: Any) -> list[str]:
    """The command of a part."""
    words = ["--part", part, "--pack", arguments.pack, "--work", arguments.work, *more]
    words += ["--pixels", arguments.pixels]
    words += ["--dry"] if arguments.dry else []
    return [sys.executable, __file__, *map(str, words)]


def device_benchmark(arguments: argparse.Namespace, home: Path, seconds: float) -> list[str]:
    """The command of part c."""
    words: list[Any] = [ROOT / "benchmarks" / "device.py", "--minutes", seconds / 60]
    if arguments.dry:
        words += ["--device", "cpu", "--models", "1m", "--batches", 1, 2, "--tokens", 8]
        words += ["--train", "1m:64", "--batch-tokens", 128, "--repeats", 1]
    return [sys.executable, *map(str, [*words, "--folder", home])]


class Part:
    """A process with a limit, whose lines go to the terminal and into the log."""

    def __init__(
        self, name: str, command: list[str], seconds: float, log: Any, threads: dict[str, str]
    ) -> None:
        self.name, self.started, self.end = name, time.monotonic(), time.monotonic() + seconds
        environment = (
            os.environ
            | {
                "PYTHONPATH": os.pathsep.join(
                    filter(None, [os.environ.get("PYTHONPATH"), str(ROOT / "src")])
                ),
                "PYTHONUNBUFFERED": "1",
                "TQDM_DISABLE": "1",
            }
            | threads
        )
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=environment, process_group=0, errors="replace",
        )  # fmt: skip
        self.pump = threading.Thread(target=self._copy, args=(log,), daemon=True)
        self.pump.start()

    def _copy(self, log: Any) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            print(f"{self.name}: {line}", end="", flush=True)
            log.write(f"{self.name}: {line}")
            log.flush()

    def wait(self) -> dict[str, Any]:
        """How it ended. At its limit it is asked to stop, then killed with all that it started."""
        ended = "whole"
        for signal_, grace in ((signal.SIGTERM, ENDING), (signal.SIGKILL, 10.0)):
            try:
                self.process.wait(max(0.1, self.end - time.monotonic()))
                break
            except subprocess.TimeoutExpired:
                ended = "stopped at its limit"
                self.end = time.monotonic() + grace
                os.killpg(self.process.pid, signal_)
        self.process.wait()
        self.pump.join(5)
        code = self.process.returncode
        return {
            "ended": ended if code == 0 or ended != "whole" else f"failed with exit code {code}",
            "seconds": round(time.monotonic() - self.started, 1),
        }


@contextmanager
def mirrored(home: Path, out: Path) -> Iterator[None]:
    """OUT follows HOME every few seconds: whatever kills the call, what was there has come back."""
    done = threading.Event()

    def copy() -> None:
        out.mkdir(parents=True, exist_ok=True)
        for file in home.glob("[!.]*"):
            there = out / file.name
            if not there.exists() or there.stat().st_mtime < file.stat().st_mtime:
                shutil.copy2(file, there)

    def follow() -> None:
        while not done.wait(3):
            copy()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        copy()


def call(arguments: argparse.Namespace, found: dict[str, Any]) -> int:
    """All parts asked for, within the minutes."""
    end = time.monotonic() + 60 * arguments.minutes
    home = arguments.work / "results"
    home.mkdir(parents=True, exist_ok=True)
    pack = arguments.pack / "pack.json"
    if pack.exists() and read_json(pack).get("commit"):
        os.environ.setdefault("JPEGLM_COMMIT", read_json(pack)["commit"])
    limits = dict.fromkeys(SECONDS, math.inf) if arguments.dry else SECONDS
    # Tiny products on several cores mostly wait for each other.
    threads = {"OMP_NUM_THREADS": "1"} if arguments.dry else {}
    told: dict[str, Any] = {"found": found, "minutes": arguments.minutes, "parts": {}}

    def left() -> float:
        return end - time.monotonic()

    def run(name: str, command: list[str], seconds: float) -> None:
        told["parts"][name] = Part(name, command, seconds, log, threads).wait()
        write_json(home / "gpu.json", told)
        print(f"{name}: {told['parts'][name]}", flush=True)

    with mirrored(home, arguments.out), open(home / "gpu.log", "a") as log:
        data = None
        if "b" in arguments.only:
            command = own(arguments, "data", "--way", found["way"])
            data = Part("data", command, min(limits["data"], left()), log, threads)
        if "a" in arguments.only:
            run("a", own(arguments, "a"), min(limits["a"], left()))
        drawn = {}
        if "d" in arguments.only:
            minutes = DRY_MINUTES if arguments.dry else max(0.1, (left() - ENDING - 40) / 60)
            for name in arguments.words:
                command = own(arguments, "d", "--word", name, "--minutes", round(minutes, 2))
                # Each would otherwise compile with a process for every core.
                few = threads | {"TORCHINDUCTOR_COMPILE_THREADS": "4"}
                drawn[name] = Part(f"d {name}", command, left() - ENDING, log, few)
        if data:
            told["parts"]["data"] = data.wait()
            write_json(home / "gpu.json", told)
        if data and told["parts"]["data"]["ended"] != "whole":
            print("b is left out, for its data are not whole", flush=True)
        elif data:
            reserve = min(limits["c"], left() / 2) if "c" in arguments.only else 0.0
            seconds = left() - reserve - ENDING
            # What training takes before its clock and after it: imports, reading, samples.
            minutes = DRY_MINUTES if arguments.dry else max(0.1, (seconds - 30) / 60)
            run("b", own(arguments, "b", "--minutes", round(minutes, 2)), seconds)
        for name, part in drawn.items():
            told["parts"][f"d {name}"] = part.wait()
            write_json(home / "gpu.json", told)
        if "c" in arguments.only:
            seconds = max(5.0, left() - 5)
            run("c", device_benchmark(arguments, home, 0.8 * seconds), seconds)
    failed = [name for name, part in told["parts"].items() if part["ended"] != "whole"]
    checks = read_json(home / "right.json") if (home / "right.json").exists() else {}
    failed += [name for name, check in checks.items() if not check["holds"]]
    for file in sorted(arguments.out.glob("*")):
        print(f"{file.name}: {file.stat().st_size / 1e6:.2f} MB")
    print(f"not whole: {', '.join(failed)}" if failed else "everything is whole")
    return 1 if failed else 0


def synthetic(pack: Path) -> None:
    """Pictures for a dry run without a pack: discs on slopes, 40 to train and 8 held out."""
    import numpy as np
    from PIL import Image

    y, x = np.mgrid[:96, :96]
    for number in range(48):
        rng = np.random.default_rng(number)
        slope = rng.integers(-2, 3, (2, 3)) * np.stack([x, y], -1)[..., None].sum(-2)[..., None, :]
        base = rng.integers(60, 200, 3) + slope.reshape(96, 96, 2, 3).sum(2) // 4
        centre = rng.integers(20, 76, 2)
        disc = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < rng.integers(100, 600)
        pixels = np.where(disc[..., None], rng.integers(0, 256, 3), base).clip(0, 255)
        side = pack / "photos" / ("train" if number < 40 else "validation")
        side.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(side / f"{number}.png")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=9, help="of the whole call")
    parser.add_argument("--only", nargs="+", choices=["a", "b", "c", "d"], default=["a", "b", "c"])
    parser.add_argument("--words", nargs="+", default=["avatars", "emoji"], help="models of d")
    parser.add_argument("--pixels", type=int, choices=[64, 128], default=64, help="of b")
    parser.add_argument("--dry", action="store_true", help="on a CPU, with tiny sizes")
    parser.add_argument("--pack", type=Path, default=ROOT / "data" / "gpu", help="of data/pack.py")
    parser.add_argument("--work", type=Path, help="default: runs/gpu-64, with --dry runs/gpu-dry")
    parser.add_argument("--out", type=Path, help="what comes back; default: WORK/out")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--word", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    name = "gpu-dry" if arguments.dry else f"gpu-{arguments.pixels}"
    arguments.work = arguments.work or ROOT / "runs" / name
    arguments.out = arguments.out or arguments.work / "out"
    home, device = arguments.work / "results", "cpu" if arguments.dry else "cuda"
    size = chosen_size(arguments.pixels, arguments.dry)
    parts: dict[str, Callable[[], None]] = {
        "a": lambda: right(home, device, arguments.dry),
        "data": lambda: make_data(arguments.pack, arguments.work, arguments.way, size),
        "b": lambda: photos(arguments.work, home, arguments.minutes, device, arguments.dry, size),
        "d": lambda: words(
            arguments.pack, arguments.work, home, arguments.word, arguments.minutes, arguments.dry
        ),
    }
    if arguments.part:
        parts[arguments.part]()
        return 0
    found = look()
    print(say(found), flush=True)
    lacking = sorted(set(found["missing"]) - set(FOR_PICTURES))
    if lacking:
        sys.exit(f"{' and '.join(lacking)} are missing; nothing can run without")
    import torch

    if not arguments.dry and not torch.cuda.is_available():
        sys.exit("there is no CUDA device here; --dry runs everything on a CPU, tiny")
    if arguments.dry and not arguments.pack.exists() and found["way"] == "pictures":
        arguments.pack = arguments.work / "pack"
        synthetic(arguments.pack)
    carried = {"pictures": "photos", "tokens": "tokens.tar.xz"}[found["way"]]
    if "b" in arguments.only and not (arguments.pack / carried).exists():
        more = " --tokens 95000" if found["way"] == "tokens" else ""
        sys.exit(
            f"{arguments.pack} has no {carried}; make it, where there is a network, with: "
            f"python recipes/data/pack.py data/photos {arguments.pack}{more}"
        )
    for name in arguments.words if "d" in arguments.only else ():
        file = arguments.pack / f"{name.partition(':')[0]}.tar.xz"
        if not file.exists():
            sys.exit(f"there is no {file}; recipes/data/pack.py --tokenizer makes it")
    return call(arguments, found)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        sys.exit(str(error))
