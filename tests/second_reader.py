"""A second implementation of docs/specification.md, written from that page alone.

It imports nothing of jpeglm, and for the formats nothing but Python's standard library; numpy does
the arithmetic of the Llama. Slow, short, and only right where the page is.
"""

from __future__ import annotations

import hashlib
import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# T.81, Annex K: steps (K.1, K.2) row by row, Huffman tables (K.3 to K.6) as counts and values.
STEPS = (
    (16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
     14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
     18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
     49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
    (17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99,
     24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99) + 32 * (99,),
)  # fmt: skip
DC_COUNTS = ("00010501010101010100000000000000", "00030101010101010101010000000000")
AC_COUNTS = ("0002010303020403050504040000017d", "00020102040403040705040400010277")
AC_VALUES = (
    "01020300041105122131410613516107227114328191a1082342b1c11552d1f02433627282090a161718191a"
    "25262728292a3435363738393a434445464748494a535455565758595a636465666768696a73747576777879"
    "7a838485868788898a92939495969798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9"
    "cad2d3d4d5d6d7d8d9dae1e2e3e4e5e6e7e8e9eaf1f2f3f4f5f6f7f8f9fa",
    "000102031104052131061241510761711322328108144291a1b1c109233352f0156272d10a162434e125f117"
    "18191a262728292a35363738393a434445464748494a535455565758595a636465666768696a737475767778"
    "797a82838485868788898a92939495969798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7"
    "c8c9cad2d3d4d5d6d7d8d9dae2e3e4e5e6e7e8e9eaf2f3f4f5f6f7f8f9fa",
)
ZIGZAG = sorted(range(64), key=lambda i: (i // 8 + i % 8, i % 8 if (i // 8 + i % 8) % 2 == 0
                                          else i // 8))  # fmt: skip
# Pixels of an MCU, components of its blocks, sampling factors of Y.
SUBSAMPLING = {
    "4:2:0": (16, 16, (0, 0, 0, 0, 1, 2), 0x22),
    "4:2:2": (16, 8, (0, 0, 1, 2), 0x21),
    "4:4:4": (8, 8, (0, 1, 2), 0x11),
    "gray": (8, 8, (0,), 0x11),
}
EOI = b"\xff\xd9"
EOB, ZRL, RUN_SIZE, BITS, NAMED = 12, 13, 14, 174, 204


def codes(counts: str, values: bytes) -> dict[int, str]:
    """value → code, as Annex C makes them."""
    found, code, place = {}, 0, 0
    for length, count in enumerate(bytes.fromhex(counts), 1):
        for value in values[place : place + count]:
            found[value] = f"{code:0{length}b}"
            code += 1
        place += count
        code <<= 1
    return found


DC = [codes(counts, bytes(range(12))) for counts in DC_COUNTS]
AC = [codes(counts, bytes.fromhex(values)) for counts, values in zip(AC_COUNTS, AC_VALUES)]


def fingerprint(values: dict[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Jpeg:
    """The codec `jpeg`: headers of streams and files."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        width, height, self.blocks, self.factors = SUBSAMPLING[settings["subsampling"]]
        self.interval = settings["restart_interval"]
        self.mcus = settings["width"] // width * (settings["height"] // height)
        self.components = max(self.blocks) + 1

    def dqt(self, table: int) -> bytes:
        quality = self.settings["quality"]
        scale = 5000 // quality if quality < 50 else 200 - 2 * quality
        steps = [min(255, max(1, (step * scale + 50) // 100)) for step in STEPS[table]]
        return b"\xff\xdb\0\x43" + bytes([table, *(steps[i] for i in ZIGZAG)])

    def dht(self, table: int) -> bytes:
        dc = bytes([table]) + bytes.fromhex(DC_COUNTS[table]) + bytes(range(12))
        ac = bytes([16 + table]) + bytes.fromhex(AC_COUNTS[table] + AC_VALUES[table])
        return b"\xff\xc4\0\x1f" + dc + b"\xff\xc4\0\xb5" + ac

    def header(self, tables: bool) -> bytes:
        """Of a file with its tables, or of a stream without them."""
        n, size = self.components, self.settings
        kinds = range(1 if n == 1 else 2)
        frame = [8, *size["height"].to_bytes(2, "big"), *size["width"].to_bytes(2, "big"), n]
        scan = [n]
        for i in range(n):
            frame += [i + 1, 0x11 if i else self.factors, min(i, 1)]
            scan += [i + 1, 0x11 if i else 0]
        out = bytes.fromhex("ffd8ffe000104a46494600010100000100010000")
        out += b"".join(map(self.dqt, kinds)) if tables else b""
        out += b"\xff\xc0" + (len(frame) + 2).to_bytes(2, "big") + bytes(frame)
        out += b"".join(map(self.dht, kinds)) if tables else b""
        if self.interval:
            out += b"\xff\xdd\0\4" + self.interval.to_bytes(2, "big")
        return out + b"\xff\xda" + (len(scan) + 5).to_bytes(2, "big") + bytes([*scan, 0, 63, 0])

    def fingerprint(self) -> str:
        values = {key: value for key, value in self.settings.items() if key != "fit"}
        tables = b"".join([self.dqt(0), self.dqt(1), self.dht(0), self.dht(1)])
        return fingerprint(values | {"header": self.header(False).hex(), "tables": tables.hex()})

    def marker(self, mcu: int) -> bytes:
        """What stands before an MCU that is not the first."""
        if not self.interval or mcu % self.interval:
            return b""
        return bytes([0xFF, 0xD0 + (mcu // self.interval - 1) % 8])


class Grammar:
    """The machine of an alphabet of symbols that goes once over the picture."""

    def __init__(self, jpeg: Jpeg, alphabet: str) -> None:
        self.jpeg, self.alphabet = jpeg, alphabet
        blocks, mcus = len(jpeg.blocks), jpeg.mcus
        self.symbols = NAMED
        if alphabet != "jpeg-symbols":
            self.symbols += 12 * (blocks - 1)
        if alphabet == "jpeg-placed-symbols":
            self.symbols += 12 * (mcus - 1)

    def start(self) -> list[Any]:
        """MCU, block, k, pending bits, DC size or 0, value, ZRL before, running DC values."""
        return [0, 0, 0, 0, 0, 0, False, (0, 0, 0)]

    def dc(self, mcu: int, block: int) -> int:
        """The symbol of DC size 0."""
        if self.alphabet == "jpeg-symbols":
            return 0
        if block:
            return NAMED + 12 * (block - 1)
        if self.alphabet == "jpeg-placed-symbols" and mcu:
            return NAMED + 12 * (len(self.jpeg.blocks) - 1) + 12 * (mcu - 1)
        return 0

    def step(self, state: list[Any], symbol: int) -> list[Any] | None:
        """The state behind a symbol, None where it is illegal."""
        mcu, block, k, pending, size, value, zeros, running = state
        if mcu == self.jpeg.mcus:
            return None
        component = self.jpeg.blocks[block]
        if pending:
            n = min(pending, 4)
            part = symbol - BITS - 2**n + 2
            if not 0 <= part < 2**n:
                return None
            value, pending = value << n | part, pending - n
            if not pending and size:
                difference = value if value >> (size - 1) else value - 2**size + 1
                running = tuple(v + difference * (i == component) for i, v in enumerate(running))
            if not pending and k == 64:
                return self.ended(mcu, block, running)
            return [mcu, block, k, pending, size, value, False, running]
        if k == 0:
            size = symbol - self.dc(mcu, block)
            if not 0 <= size < 12 or abs(running[component]) + 2**size - 1 > 32767:
                return None
            return [mcu, block, 1, size, size, 0, False, running]
        if symbol == EOB:
            return None if zeros else self.ended(mcu, block, running)
        if symbol == ZRL:
            return None if k + 16 > 63 else [mcu, block, k + 16, 0, 0, 0, True, running]
        if not RUN_SIZE <= symbol < BITS:
            return None
        run, size = divmod(symbol - RUN_SIZE, 10)
        return None if k + run > 63 else [mcu, block, k + run + 1, size + 1, 0, 0, False, running]

    def ended(self, mcu: int, block: int, running: tuple[int, ...]) -> list[Any]:
        """Behind a block."""
        block += 1
        if block == len(self.jpeg.blocks):
            mcu, block = mcu + 1, 0
            if self.jpeg.interval and mcu % self.jpeg.interval == 0:
                running = (0, 0, 0)
        return [mcu, block, 0, 0, 0, 0, False, running]

    def complete(self, state: list[Any]) -> bool:
        return bool(state[0] == self.jpeg.mcus)

    def shortest(self, state: list[Any]) -> int:
        mcu, block, k, pending, _, _, zeros, _ = state
        if mcu == self.jpeg.mcus:
            return 0
        if pending:
            now = -(-pending // 4) + (k < 64)
        elif k == 0:
            now = 2
        else:
            now = (2 if k >= 48 else 3) if zeros else 1
        blocks = len(self.jpeg.blocks)
        return int(now + 2 * (blocks * (self.jpeg.mcus - mcu) - block - 1))


def write_scan(symbols: list[int], jpeg: Jpeg) -> bytes:
    """The scan that symbols spell, in the order of a stream; what is missing or wrong is flat."""
    grammar = Grammar(jpeg, "jpeg-symbols")
    state, out, bits = grammar.start(), b"", ""
    waiting = [(s - NAMED) % 12 if s >= NAMED else s for s in symbols][::-1]

    def filled() -> bytes:
        whole = bits + "1" * (-len(bits) % 8)
        data = bytes(int(whole[i : i + 8], 2) for i in range(0, len(whole), 8))
        return data.replace(b"\xff", b"\xff\0")

    while not grammar.complete(state):
        mcu, block, k, pending, _, _, zeros, _ = state
        symbol = waiting.pop() if waiting else -1
        after = grammar.step(state, symbol)
        if after is None:
            waiting = []
            if pending:
                symbol = BITS + 2 ** min(pending, 4) - 2
            else:
                symbol = 0 if k == 0 else RUN_SIZE if zeros else EOB
            after = grammar.step(state, symbol)
            assert after is not None
        chroma = min(jpeg.blocks[block], 1)
        if symbol >= BITS:
            n = (symbol - BITS + 2).bit_length() - 1
            bits += f"{symbol - BITS + 2 - 2**n:0{n}b}"
        elif k == 0:
            bits += DC[chroma][symbol]
        else:
            run, size = divmod(symbol - RUN_SIZE, 10)
            bits += AC[chroma][{EOB: 0x00, ZRL: 0xF0}.get(symbol, run * 16 + size + 1)]
        if after[0] != mcu and (marker := jpeg.marker(after[0])) and not grammar.complete(after):
            out += filled() + marker
            bits = ""
        state = after
    return out + filled()


def read_scan(scan: bytes, jpeg: Jpeg, grammar: Grammar) -> list[int]:
    """The symbols of a canonical scan, in its own order."""
    values = [{code: value for value, code in table.items()} for table in (*DC, *AC)]
    bits = "".join(f"{byte:08b}" for byte in scan)
    at, symbols, state = 0, [], grammar.start()

    def take(count: int) -> str:
        nonlocal at
        found = ""
        for _ in range(count):
            if at % 8 == 0 and at >= 16 and scan[at // 8 - 1] == 0xFF and scan[at // 8] == 0:
                at += 8
            found += bits[at]
            at += 1
        return found

    while not grammar.complete(state):
        mcu, block, k, pending = state[:4]
        if pending:
            n = min(pending, 4)
            symbol = BITS + 2**n - 2 + int(take(n), 2)
        else:
            table = values[min(jpeg.blocks[block], 1) + (2 if k else 0)]
            code = take(1)
            while code not in table:
                code += take(1)
            value = table[code]
            if k == 0:
                symbol = grammar.dc(mcu, block) + value
            else:
                other = RUN_SIZE + 10 * (value >> 4) + (value & 15) - 1
                symbol = {0x00: EOB, 0xF0: ZRL}.get(value, other)
        after = grammar.step(state, symbol)
        assert after is not None
        symbols.append(symbol)
        if after[0] != mcu and (marker := jpeg.marker(after[0])) and not grammar.complete(after):
            at += -at % 8
            if scan[at // 8 - 1] == 0xFF:  # it was filled up to FF
                at += 8
            assert scan[at // 8 : at // 8 + 2] == marker
            at += 16
        state = after
    return symbols


class Vocabulary:
    """What `tokenizer.json` and `codec.json` say, whatever the codec."""

    def __init__(self, folder: Path) -> None:
        self.record = json.loads((folder / "codec.json").read_text())
        self.alphabet: str = self.record["alphabet"]
        stored = json.loads((folder / "tokenizer.json").read_text())
        vocab, merges = stored["model"]["vocab"], stored["model"]["merges"]
        self.words = "<0x00>" in vocab
        self.whole = self.alphabet in ("paper-bytes", "paper-bytes-prefixed")
        self.lead = [256] if self.alphabet == "paper-bytes-prefixed" else []
        self.first = 0x2800 if self.whole else 0x4E00
        self.first = 0xF0000 if self.words else self.first
        specials = {token["content"]: token["id"] for token in stored["added_tokens"]}
        self.bos, self.eos = specials["<s>"], specials["</s>"]
        self.classes = sum(name.startswith("<class_") for name in specials)
        self.hole = specials.get("<hole>")
        self.addresses = {i: int(name[5:-1]) for name, i in specials.items() if "<mcu_" in name}
        self.spelling = {
            i: [ord(character) - self.first for character in name]
            for name, i in vocab.items()
            if i < self.bos
        }
        self.size = max([*vocab.values(), *specials.values()]) + 1
        self.first_word = vocab.get("<0x00>", 0)
        pairs = [(vocab[a], vocab[b], vocab[a + b]) for a, b in merges]
        self.merges = [pair for pair in pairs if pair[0] < self.bos]
        self.word_merges = pairs[len(self.merges) :]

    def symbols(self, ids: list[int]) -> list[int]:
        return [symbol for i in ids for symbol in self.spelling.get(i, [])]


class Folder(Vocabulary):
    """A checkpoint or tokenizer folder of JPEGs: ids ⇄ files, and which ids may come."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.jpeg = Jpeg(self.record["codec"])
        self.grammar = Grammar(self.jpeg, self.alphabet)

    def fingerprint(self) -> str:
        values = {
            "codec": self.jpeg.fingerprint(),
            "alphabet": self.alphabet,
            "merges": [[a, b] for a, b, _ in self.merges],
            "classes": self.classes,
        }
        if self.words:
            first = self.first_word
            values["text"] = [[a - first, b - first] for a, b, _ in self.word_merges]
        if self.addresses:
            values["holes"] = True
        return fingerprint(values)

    def encode(self, ids: list[int], merges: list[tuple[int, int, int]]) -> list[int]:
        """Merge, the first of `merges` first, of equal ones the leftmost."""
        rank = {(a, b): (n, new) for n, (a, b, new) in enumerate(merges)}
        ids = list(ids)
        while pairs := [(rank[p][0], i) for i, p in enumerate(pairwise(ids)) if p in rank]:
            _, at = min(pairs)
            ids[at : at + 2] = [rank[ids[at], ids[at + 1]][1]]
        return ids

    def encode_text(self, text: str) -> list[int]:
        data = " ".join(text.split()).encode()
        return self.encode([self.first_word + byte for byte in data], self.word_merges)

    def encode_file(self, file: bytes) -> list[int]:
        """Ids of a picture, without BOS and EOS, of a file or a stream."""
        header = self.jpeg.header(file[20:22] == b"\xff\xdb")
        assert file.startswith(header) and file.endswith(EOI)
        scan = file[len(header) : -2]
        if self.whole:
            stream = self.jpeg.header(False) + scan + EOI
            return self.encode([*self.lead, *stream], self.merges)
        if self.alphabet == "bytes":
            symbols, rest = [], scan
            while rest:
                marker = rest[0] == 0xFF and 0xD0 <= rest[1] < 0xD8
                symbols.append(256 + rest[1] - 0xD0 if marker else rest[0])
                rest = rest[1 + marker :]
            return self.encode(symbols, self.merges)
        name = self.alphabet.replace("coarse", "block")
        symbols = read_scan(scan, self.jpeg, Grammar(self.jpeg, name))
        if self.alphabet == "jpeg-coarse-symbols":
            parts: tuple[list[int], list[int]] = ([], [])
            for symbol in symbols:
                if not BITS <= symbol < NAMED:
                    turn = 12 <= symbol < BITS
                parts[turn].append(symbol)
            symbols = parts[0] + parts[1]
        return self.encode(symbols, self.merges)

    def in_order(self, ids: list[int]) -> list[int]:
        """Ids with their spans in the order of the addresses."""
        spans: dict[int, list[int]] = {-1: []}
        address = -1
        for i in ids:
            address = self.addresses.get(i, address)
            spans.setdefault(address, []).append(i)
        return [i for address in sorted(spans) for i in spans[address]]

    def decode(self, ids: list[int]) -> bytes:
        """A whole file, of ids of any kind."""
        symbols, header = self.symbols(self.in_order(ids)), self.jpeg.header(True)
        if self.whole:
            stream = bytes(symbol for symbol in symbols if symbol < 256)
            return header + stream[len(self.jpeg.header(False)) :]
        if self.alphabet == "bytes":
            parts = (bytes([s]) if s < 256 else bytes([0xFF, 0xD0 + s - 256]) for s in symbols)
            return header + b"".join(parts) + EOI
        if self.alphabet == "jpeg-coarse-symbols":
            symbols = self.interleaved(symbols)
        return header + write_scan(symbols, self.jpeg) + EOI

    def interleaved(self, symbols: list[int]) -> list[int]:
        """A whole picture's symbols, the DC coefficients first, in the order of a stream."""
        total = self.jpeg.mcus * len(self.jpeg.blocks)
        parts: list[list[int]] = []
        rest = symbols[::-1]
        while len(parts) < total:  # a DC size, and bits of its amplitude
            part = [rest.pop()]
            while rest and BITS <= rest[-1] < NAMED:
                part.append(rest.pop())
            parts.append(part)
        for part in parts:
            k = 1
            while k < 64:
                symbol = rest.pop()
                part.append(symbol)
                if symbol == EOB:
                    break
                k += 16 if symbol == ZRL else (symbol - RUN_SIZE) // 10 + 1
                while rest and BITS <= rest[-1] < NAMED:
                    part.append(rest.pop())
        return [symbol for part in parts for symbol in part]

    def prompt(self, symbols: list[int]) -> tuple[list[int], list[int]]:
        """(ids that are certain, symbols that are forced) of a picture's beginning."""
        joined = {pair for spelt in self.spelling.values() for pair in pairwise(spelt)}
        end = max(len(symbols) - 1, 0)
        while end and (symbols[end - 1], symbols[end]) in joined:
            end -= 1
        return self.encode(symbols[:end], self.merges), symbols[end:]

    def walk(self, budget: int, given: list[int], forced: list[int]) -> Walk:
        """A walk behind the ids `given`, BOS first, in which `forced` symbols come next."""
        state = self.grammar.start()
        for symbol in self.symbols(given):
            state = self.grammar.step(state, symbol)
        return Walk(self, state, list(forced), budget - len(given))


class Walk:
    """Where a sequence stands: the grammar's state, forced symbols, tokens that are left."""

    def __init__(self, folder: Folder, state: Any, forced: list[int], left: int) -> None:
        self.folder, self.grammar = folder, folder.grammar
        self.state, self.forced, self.left = state, forced, left

    def after(self, token: int) -> tuple[Any, list[int]] | None:
        """(state, symbols still forced) behind a token, None where a symbol is illegal."""
        state, forced = self.state, self.forced
        for symbol in self.folder.spelling[token]:
            if forced and symbol != forced[0]:
                return None
            state, forced = self.grammar.step(state, symbol), forced[1:]
            if state is None:
                return None
        return state, forced

    def legal(self, token: int) -> bool:
        whole = self.grammar.complete(self.state) and not self.forced
        if token not in self.folder.spelling or whole:
            return whole and token == self.folder.eos
        found = self.after(token)
        if found is None:
            return False
        state, forced = found
        for symbol in forced:
            state = self.grammar.step(state, symbol)
        return len(forced) + self.grammar.shortest(state) <= self.left - 2

    def accept(self, token: int) -> None:
        self.left -= 1
        if token != self.folder.eos:
            found = self.after(token)
            assert found is not None
            self.state, self.forced = found


def uniform(seed: int, picture: int, step: int) -> float:
    mask, x = 2**64 - 1, 0
    for number in (seed, picture, step):
        x = x + number + 0x9E3779B97F4A7C15 & mask
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & mask
        x = (x ^ x >> 27) * 0x94D049BB133111EB & mask
        x ^= x >> 31
    return (x >> 11) / 2**53


class Sampling(NamedTuple):
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0


def choose(logits: np.ndarray, walk: Walk, u: float, sampling: Sampling) -> int:
    """The next token."""
    if sampling.temperature:
        weight = np.exp((logits - logits.max()).astype(np.float64) / sampling.temperature)
        order = list(range(len(weight)))
        if sampling.top_k or sampling.top_p < 1:
            order.sort(key=lambda i: (-weight[i], i))
            order = order[: sampling.top_k or None]
            total, reached, n = float(weight[order].sum()), 0.0, 0
            while sampling.top_p < 1 and n < len(order) and reached < sampling.top_p * total:
                reached += weight[order[n]]
                n += 1
            order = order[: n or None]
        order = [i for i in order if weight[i] >= sampling.min_p and walk.legal(i)]
        target = u * float(weight[order].sum())
        for token in order:
            target -= weight[token]
            if target < 0:
                return token
        if order:
            return order[-1]
    legal = [i for i in range(len(logits)) if walk.legal(i)]
    return max(legal, key=lambda i: (logits[i], -i))


class Llama:
    """`config.json` and `model.safetensors`, one token at a time, in float32."""

    def __init__(self, folder: Path) -> None:
        self.config = json.loads((folder / "config.json").read_text())
        data = (folder / "model.safetensors").read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        self.weights: dict[str, np.ndarray] = {}
        for name, entry in json.loads(data[8:start]).items():
            if name != "__metadata__":
                assert entry["dtype"] == "BF16"  # the upper half of a float32
                first, end = (start + place for place in entry["data_offsets"])
                bits = np.frombuffer(data[first:end], "<u2").astype(np.uint32) << 16
                self.weights[name] = bits.view(np.float32).reshape(entry["shape"])
        self.cache: list[tuple[list[np.ndarray], list[np.ndarray]]] = [
            ([], []) for _ in range(self.config["num_hidden_layers"])
        ]
        self.place = 0

    def norm(self, x: np.ndarray, name: str) -> np.ndarray:
        mean = (x * x).mean() + self.config["rms_norm_eps"]
        return x / np.sqrt(mean) * self.weights[name + ".weight"]

    def turned(self, x: np.ndarray) -> np.ndarray:
        """Rotary positions of [heads, size]: the second half belongs to the first."""
        half = x.shape[1] // 2
        angle = self.place * self.config["rope_theta"] ** (-np.arange(half) / half)
        cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
        a, b = x[:, :half], x[:, half:]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=1)

    def read(self, token: int) -> np.ndarray:
        """Logits behind one more token, float32 [vocabulary]."""
        w, heads = self.weights, self.config["num_attention_heads"]
        x = w["model.embed_tokens.weight"][token]
        for layer, (keys, values) in enumerate(self.cache):
            name = f"model.layers.{layer}."
            y = self.norm(x, name + "input_layernorm")
            q, k, v = (
                (w[f"{name}self_attn.{part}_proj.weight"] @ y).reshape(heads, -1) for part in "qkv"
            )
            keys.append(self.turned(k))
            values.append(v)
            score = np.einsum("hd,thd->ht", self.turned(q), np.stack(keys)) / math.sqrt(q.shape[1])
            share = np.exp(score - score.max(1, keepdims=True))
            share /= share.sum(1, keepdims=True)
            y = np.einsum("ht,thd->hd", share, np.stack(values)).reshape(-1)
            x = x + w[name + "self_attn.o_proj.weight"] @ y
            y = self.norm(x, name + "post_attention_layernorm")
            gate = w[name + "mlp.gate_proj.weight"] @ y
            y = gate / (1 + np.exp(-gate)) * (w[name + "mlp.up_proj.weight"] @ y)
            x = x + w[name + "mlp.down_proj.weight"] @ y
        self.place += 1
        head = w.get("lm_head.weight", w["model.embed_tokens.weight"])
        return head @ self.norm(x, "model.norm")


def draw(
    folder: Path, sampling: Sampling, seed: int = 0, picture: int = 0, head: int | None = None
) -> tuple[list[int], bytes]:
    """(ids behind BOS or the class `head`, file) of a picture from nothing."""
    format_, model = Folder(folder), Llama(folder)
    token = format_.bos if head is None else head
    walk, ids = format_.walk(model.config["max_position_embeddings"], [token], []), list[int]()
    while token != format_.eos:
        logits = model.read(token)
        token = choose(logits, walk, uniform(seed, picture, len(ids)), sampling)
        walk.accept(token)
        ids.append(token)
    return ids, format_.decode(ids)
