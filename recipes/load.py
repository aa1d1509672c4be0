"""A server under load: nothing lost, as fast as the session alone, no memory that grows.

    python recipes/load.py [--seconds 120] [--clients 32] [--cancelled 10000] [--quick]
                           [--out docs/results/load.json]

A real `jpeglm serve` of the shipped photo model, in a process of its own, and clients in this one:

1. clients that ask again as soon as they are answered, more of them than there is room for, so that
   some are sent away (429) and come again. In turns with them the session alone draws here, with as
   many rows and always enough to draw. The files are all judged, after the clock has stopped.
2. four clients that stream: seconds to the first partial picture.
3. requests whose clients hang up, before or while they are drawn; the server is as it was then.
4. SIGTERM while all clients wait.

Shares of the machine are what is compared, so it should be idle; the load at the start is recorded.
Needs the extra `serve`, and /proc for the memory. Exit code 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jpeglm.codecs.check import check_file
from jpeglm.environment import environment
from jpeglm.files import write_json
from jpeglm.generation.loading import load
from jpeglm.generation.model import Model
from jpeglm.generation.requests import Request

ROOT = Path(__file__).resolve().parents[1]
MODEL = "photos"
ROWS = 16
"""Pictures drawn at a time, here and there."""
TURN = 15.0
"""Seconds of a turn, at most."""
GOALS = {"share": 0.85, "first": 0.3, "growth": 1.05}
"""Of the session's tokens a second, at least; seconds of 95 % of the first partial pictures; memory
after the last turn over that after the first, at most."""
POST = "POST /v1/images/generations HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n"


class Server:
    """`jpeglm serve` as people start it. queue: pictures that may wait."""

    def __init__(self, queue: int) -> None:
        words = ["--checkpoint", MODEL, "--rows", str(ROWS), "--queue", str(queue)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jpeglm", "serve", "--port", "0", "--json", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(self.process.communicate()[1])
        self.place = urlsplit(json.loads(line)["url"]).netloc

    def get(self, path: str) -> tuple[int, str]:
        """(status, text)."""
        link = http.client.HTTPConnection(self.place, timeout=60)
        link.request("GET", path)
        answer = link.getresponse()
        text = answer.read().decode()
        link.close()
        return answer.status, text

    def figure(self, name: str) -> float:
        """A figure of /metrics."""
        start = f'{name}{{model="{MODEL}"}} '
        lines = self.get("/metrics")[1].splitlines()
        return float(next(line[len(start) :] for line in lines if line.startswith(start)))

    def memory(self) -> float:
        """Megabytes that lie in memory."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.partition("VmRSS:")[2].split()[0]) / 1024


class Client:
    """Asks for one picture at a time on one connection. answers: (begun, status, body)."""

    def __init__(self, place: str, number: int) -> None:
        self.link = http.client.HTTPConnection(place, timeout=300)
        self.seed = 1_000_000 * number
        self.answers: list[tuple[float, int, bytes]] = []
        """Status 0: there was no answer."""

    def ask(self, **fields: Any) -> int:
        """The status, written down. A body is left as it came, to be judged later."""
        self.seed += 1
        body = json.dumps({"model": MODEL, "seed": self.seed, **fields})
        begun = time.time()
        try:
            self.link.request(
                "POST", "/v1/images/generations", body, {"Content-Type": "application/json"}
            )
            answer = self.link.getresponse()
            found, status = answer.read(), answer.status
            self.wait = float(answer.headers.get("Retry-After", 0))
        except (OSError, http.client.HTTPException):
            self.link.close()
            found, status = b"", 0
        self.answers.append((begun, status, found))
        return status

    def first(self) -> float:
        """Seconds to a stream's first partial picture; the stream is read to its end."""
        self.seed += 1
        fields = {"model": MODEL, "seed": self.seed, "stream": True, "partial_images": 16}
        begun = time.perf_counter()
        self.link.request(
            "POST",
            "/v1/images/generations",
            json.dumps(fields),
            {"Content-Type": "application/json"},
        )
        answer = self.link.getresponse()
        assert answer.status == 200
        while b"partial_image" not in answer.readline():
            pass
        took = time.perf_counter() - begun
        assert b"completed" in answer.read()
        return took


def together(clients: list[Client], work: Callable[[Client], Any]) -> list[Any]:
    """What `work` gives for each client, all at the same time."""
    with ThreadPoolExecutor(len(clients)) as hands:
        return list(hands.map(work, clients))


class Alone:
    """The same model's session in this process."""

    def __init__(self) -> None:
        model = load(MODEL)
        assert isinstance(model, Model)
        self.session, self.seed = model.session, 0
        self.session.rows = ROWS
        prompt = model.prompts.bare(None, None)
        self.make = lambda seed: Request(prompt, model.sampling(prompt), seed)
        self.turn(0.1)

    def turn(self, seconds: float) -> float:
        """Tokens a second; there are always as many waiting as are drawn."""
        own: set[int] = set()
        begun, before = time.perf_counter(), self.session.tokens
        while (took := time.perf_counter() - begun) < seconds:
            while len(own) < 2 * ROWS:
                self.seed += 1
                own.add(self.session.add(self.make(self.seed)))
            own -= {event.number for event in self.session.step() if event.ended}
        rate = (self.session.tokens - before) / took
        for number in own:
            self.session.remove(number)
        while self.session.busy:
            self.session.step()
        return rate


def under_load(server: Server, count: int, seconds: float) -> dict[str, Any]:
    """Part 1: turns of clients and of the session alone."""
    alone, turns = Alone(), max(2, round(seconds / TURN))
    clients = [Client(server.place, number + 1) for number in range(count)]
    together(clients[:ROWS], lambda client: client.ask())  # neither side compiles or loads any more
    served, own, memory = [], [], []
    for _ in range(turns):
        ends = time.monotonic() + seconds / turns

        def work(client: Client, ends: float = ends) -> None:
            while time.monotonic() < ends:
                if client.ask() == 429:
                    client.link.close()  # the server closes one that is quiet for five seconds
                    time.sleep(min(client.wait, max(0.0, ends - time.monotonic())))
            client.link.close()

        def watch(ends: float = ends) -> float:
            """Tokens a second from the moment the rows are full to the turn's end."""
            time.sleep(min(0.5, seconds / turns / 4))
            begun, before = time.perf_counter(), server.figure("jpeglm_tokens_total")
            time.sleep(max(0.0, ends - time.monotonic()))
            after = server.figure("jpeglm_tokens_total")
            return (after - before) / (time.perf_counter() - begun)

        with ThreadPoolExecutor(1) as aside:
            rate = aside.submit(watch)
            together(clients, work)
            served.append(rate.result())
        memory.append(server.memory())
        own.append(alone.turn(seconds / turns))
    answers = [answer for client in clients for answer in client.answers]
    statuses = Counter(status for _, status, _ in answers)
    files = [
        base64.b64decode(json.loads(body)["data"][0]["b64_json"])
        for _, status, body in answers
        if status == 200
    ]
    tokens = {"served": sum(served) / turns, "alone": sum(own) / turns}
    return {
        "clients": count,
        "seconds": seconds,
        "requests": len(answers),
        "pictures": len(files),
        "told_to_come_again": statuses[429],
        "lost": statuses[0],
        "other_statuses": {str(k): v for k, v in statuses.items() if k not in (0, 200, 429)},
        "invalid": sum(not check_file(file, {}).valid for file in files),
        "tokens_per_second": {name: round(rate) for name, rate in tokens.items()},
        "share": round(tokens["served"] / tokens["alone"], 3),
        "shares": [round(a / b, 3) for a, b in zip(served, own)],
        "megabytes": [round(one, 1) for one in memory],
        "growth": round(memory[-1] / memory[0], 3),
    }


def first_pictures(server: Server, seconds: float) -> dict[str, Any]:
    """Part 2: four clients that stream."""
    ends = time.monotonic() + seconds

    def work(client: Client) -> list[float]:
        found = [client.first()]
        while time.monotonic() < ends:
            found.append(client.first())
        return found

    clients = [Client(server.place, 100 + number) for number in range(4)]
    found = sorted(one for each in together(clients, work) for one in each)
    at = {f"p{share}": found[min(len(found) - 1, len(found) * share // 100)] for share in (50, 95)}
    return {"clients": 4, "streams": len(found), **{k: round(v, 4) for k, v in at.items()}}


def hang_up(server: Server, count: int, rng: random.Random) -> dict[str, Any]:
    """Part 3: clients that go away."""
    host, port = server.place.rsplit(":", 1)
    asked = Client(server.place, 500)
    fields = {"seed": 7}
    assert asked.ask(**fields) == 200
    asked.link.close()  # which would be quiet for too long
    memory = [server.memory()]
    told: Counter[str] = Counter()
    lock = threading.Lock()

    def one(seed: int) -> None:
        body = json.dumps({"model": MODEL, "seed": seed, "stream": bool(seed % 2)})
        head = POST.format(server.place) + f"Content-Length: {len(body)}\r\n\r\n"
        with socket.create_connection((host, int(port)), timeout=60) as link:
            link.sendall((head + body).encode())
            if stays[seed]:
                link.settimeout(stays[seed])
                try:
                    status = link.recv(12)[9:12].decode()
                except TimeoutError:
                    status = "none yet"
            else:
                status = "none yet"
        with lock:
            told[status] += 1

    stays = [rng.choice((0.0, 0.01, 0.05, 0.2)) for _ in range(count)]
    with ThreadPoolExecutor(32) as hands:
        for tenth in range(10):
            list(hands.map(one, range(count * tenth // 10, count * (tenth + 1) // 10)))
            memory.append(server.memory())
    begun = time.monotonic()
    while server.figure("jpeglm_open") and time.monotonic() - begun < 60:
        time.sleep(0.05)
    health, left = server.get("/health")[0], server.figure("jpeglm_open")
    asked.ask(**fields)
    pictures = [json.loads(body)["data"][0] for _, status, body in asked.answers if status == 200]
    return {
        "requests": sum(told.values()),
        "statuses_seen": dict(told),
        "left": left,
        "health": health,
        "draws_the_same": len(pictures) == 2 and pictures[0] == pictures[1],
        "megabytes": [round(one, 1) for one in memory],
        "growth": round(memory[-1] / memory[3], 3),
    }


def terminate(server: Server, count: int) -> dict[str, Any]:
    """Part 4: the end. What was asked before it has an answer; who comes later may find nobody."""
    clients = [Client(server.place, 1000 + number) for number in range(count)]
    moments: list[float] = []

    def work(client: Client) -> None:
        while client.ask() in (200, 429):
            pass

    def end() -> None:
        while server.figure("jpeglm_open") < ROWS:
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        moments.append(time.time())

    with ThreadPoolExecutor(1) as aside:
        ended = aside.submit(end)
        together(clients, work)
        ended.result()
    _, said = server.process.communicate(timeout=60)
    answers = [answer for client in clients for answer in client.answers]
    before = Counter(status for begun, status, _ in answers if begun < moments[0])
    after = Counter(status for begun, status, _ in answers if begun >= moments[0])
    return {
        "asked_before": {str(k): v for k, v in before.items()},
        "asked_after": {str(k) if k else "nobody there": v for k, v in after.items()},
        "lost": before[0],
        "exit_code": server.process.returncode,
        "said": said.splitlines()[-1:],
    }


def missed(found: dict[str, Any]) -> list[str]:
    """The goals that are not reached, in words."""
    load_, first, gone, end = (found[name] for name in ("load", "first", "cancelled", "sigterm"))
    asked = {
        "under load, an answer was lost": load_["lost"] == 0,
        "under load, there were other errors than 429": not load_["other_statuses"],
        "under load, a file was invalid": load_["invalid"] == 0,
        f"throughput is under {GOALS['share']:.0%} of the session's": load_["share"]
        >= GOALS["share"],
        "memory grows under load": load_["growth"] <= GOALS["growth"],
        f"first partial pictures take over {GOALS['first']} s": first["p95"] < GOALS["first"],
        "cancelled requests leave rows": gone["left"] == 0,
        "after cancelled requests it is not well": gone["health"] == 200,
        "after cancelled requests it draws another picture": gone["draws_the_same"],
        "memory grows with cancelled requests": gone["growth"] <= GOALS["growth"],
        "at SIGTERM, an answer was lost": end["lost"] == 0,
        "at SIGTERM, it did not end well": end["exit_code"] == 0 and end["said"] == ["stopped"],
    }
    return [words for words, holds in asked.items() if not holds]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=120, help="of clients, without the others")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--cancelled", type=int, default=10_000)
    parser.add_argument("--quick", action="store_true", help="8 seconds, 300 cancelled requests")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "load.json")
    arguments = parser.parse_args()
    seconds, cancelled = arguments.seconds, arguments.cancelled
    if arguments.quick:
        seconds, cancelled = 8.0, 300
    found: dict[str, Any] = {"load_average": os.getloadavg()[0], "rows": ROWS, "model": MODEL}
    server = Server(queue=max(1, arguments.clients - ROWS - 4))
    try:
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "load": lambda: under_load(server, arguments.clients, seconds),
            "first": lambda: first_pictures(server, seconds / 4),
            "cancelled": lambda: hang_up(server, cancelled, random.Random(0)),
            "sigterm": lambda: terminate(server, arguments.clients),
        }
        for name, part in parts.items():
            found[name] = part()
            print(f"{name}: {json.dumps(found[name])}", flush=True)
    finally:
        server.process.kill()
        server.process.communicate()
    found["missed"] = missed(found)
    found["command"] = " ".join(["python recipes/load.py", *sys.argv[1:]])
    found["machine"] = environment("numpy", "numba", "fastapi", "uvicorn")
    write_json(arguments.out, found)
    print("; ".join(found["missed"]) or "all goals are reached")
    return 1 if found["missed"] else 0


if __name__ == "__main__":
    sys.exit(main())
