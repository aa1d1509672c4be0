"""The language of scans told once more, in plain Python, at its edges: the last coefficient, runs
of zeros, running DC values at the end of int16. Reader and machines agree with it."""

import numpy as np
import pytest

from jpeglm.codecs import JpegCodec
from jpeglm.config import JpegConfig
from jpeglm.syntax import machine
from jpeglm.syntax.alphabet import ALPHABETS
from jpeglm.syntax.jpeg import AC_FIRST, AMPLITUDE_FIRST
from jpeglm.syntax.jpeg_tables import AC_INDEX, AC_RUN_SIZES, AC_TABLES, DC_TABLES
from jpeglm.syntax.scan import StreamError, inspect_scan, write_scan

LIMIT = 32767
EOI = b"\xff\xd9"
CONFIGS = [
    JpegConfig(64, 64, 25, "gray", 0),
    JpegConfig(64, 64, 25, "gray", 30),
    JpegConfig(64, 64, 25, "4:2:0", 7),
    JpegConfig(80, 80, 25, "4:4:4", 40),
    JpegConfig(16, 16, 25, "gray", 1),
]
SMALL = [
    JpegConfig(32, 16, 25, "4:2:2", 0),
    JpegConfig(48, 16, 25, "4:2:0", 2),  # the last interval has one MCU
]


class Writer:
    """A scan from its first bit on, by T.81 F.1.2, with what makes it one of ours or not."""

    def __init__(self, codec, rng, dc_faults, ac_faults):
        self.rng, self.dc_faults, self.ac_faults = rng, dc_faults, ac_faults
        self.readable = self.legal = self.fits = True
        component, interval = codec.components, codec.config.restart_interval
        self.bits, scan = [], b""
        self.running = [0, 0, 0]
        for mcu in range(codec.units):
            if interval and mcu and mcu % interval == 0:
                scan += self.filled() + bytes([0xFF, 0xD0 + (mcu // interval - 1) % 8])
                self.running = [0, 0, 0]
            for part in component:
                self.dc(part)
                self.ac(min(part, 1))
        self.scan = scan + self.filled()

    def filled(self):
        """The bits so far as bytes: the last one filled with ones, and no further one."""
        bits, self.bits = "".join(self.bits), []
        fill = "1" * (-len(bits) % 8)
        if self.fault():
            self.readable = False
            fill = fill[:-1] + "0" if fill and self.rng.random() < 0.5 else fill + "1" * 8
        bits += fill
        return int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")

    def fault(self):
        return self.rng.random() < self.ac_faults

    def code(self, table, value):
        self.bits.append(f"{table.code[value]:0{table.length[value]}b}")

    def amplitude(self, value, size):
        if size:
            self.bits.append(f"{value if value > 0 else value + (1 << size) - 1:0{size}b}")

    def dc(self, part):
        """Mostly upwards (or downwards), in steps that end where exactly some size just fits."""
        rng, now = self.rng, self.running[part]
        sign = 1 if now > 0 or (now == 0 and rng.random() < 0.5) else -1
        room = max(1, LIMIT + 1 - abs(now)).bit_length() - 1  # the largest size that is legal
        size = min(11, room)
        edge = LIMIT + 1 - (1 << int(rng.integers(0, 12)))
        if 0 < edge - abs(now) < 1 << size:
            step = sign * (edge - abs(now))
        elif rng.random() < self.dc_faults and room < 11:
            size = room + 1
            step = sign * int(rng.choice([(1 << size) - 1, 1 << (size - 1), 1 - (1 << size)]))
        else:
            size = size if rng.random() < 0.8 else int(rng.integers(0, size + 1))
            step = sign * int(rng.integers(1 << size >> 1, 1 << size))
            step = -step if rng.random() < 0.1 else step
        size = abs(step).bit_length()
        self.legal &= abs(now) + (1 << size) - 1 <= LIMIT
        self.running[part] = now + step
        self.fits &= abs(now + step) <= LIMIT
        self.code(DC_TABLES[min(part, 1)], size)
        self.amplitude(step, size)

    def ac(self, chroma):
        rng, table, k, zeros = self.rng, AC_TABLES[chroma], 1, False
        while k < 64:
            if rng.random() < 0.4 and (not zeros or self.fault()):
                self.readable &= not zeros
                self.code(table, 0x00)
                return
            if rng.random() < 0.4 and (k + 16 <= 63 or self.fault()):
                self.code(table, 0xF0)
                k, zeros = k + 16, True
                self.readable &= k <= 63
                continue
            run = int(rng.integers(0, 16))
            if rng.random() < 0.3 and 63 - k <= 15:
                run = 63 - k  # the last coefficient
            if k + run > 63:
                run = 64 - k if self.fault() else 63 - k
            size = int(rng.integers(1, 11))
            self.code(table, run << 4 | size)
            value = int(rng.integers(1 << size >> 1, 1 << size))
            self.amplitude(value if rng.random() < 0.5 else -value, size)
            k, zeros = k + run + 1, False
            self.readable &= k <= 64


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_reader_and_machines_speak_this_language(config):
    codec, rng = JpegCodec(config), np.random.default_rng(0)
    alphabets = [codec.alphabet(name) for name in ALPHABETS]
    verdicts = set()
    for number in range(120):
        told = Writer(codec, rng, 0.05 * (number % 2), (0, 0, 0.01, 0.1)[number % 4])
        stream = codec.header + told.scan + EOI
        for alphabet in alphabets[-2:]:
            symbols = np.asarray(alphabet.split(stream), np.int64)
            taken = machine.accepts(alphabet.spec, machine.start_state(alphabet.spec), symbols)
            assert taken == (told.readable and told.legal)
        verdicts.add((told.readable, told.legal, told.fits))
        if not told.readable:
            with pytest.raises(StreamError):
                inspect_scan(told.scan, codec.spec)
            continue
        symbols, _, fits = inspect_scan(told.scan, codec.spec)
        assert fits == told.fits
        # What no machine takes is written only as far as it goes.
        scan, _, used = write_scan(symbols, codec.spec)
        assert (scan == told.scan) == (used == len(symbols)) == told.legal
        for alphabet in alphabets[:-2]:
            symbols = np.asarray(alphabet.split(stream), np.int64)
            taken = machine.accepts(alphabet.spec, machine.start_state(alphabet.spec), symbols)
            assert taken == told.legal
    kinds = {(readable, legal) for readable, legal, _ in verdicts}
    assert kinds >= {(True, True), (False, True)}
    if codec.units > 4:  # else no value gets that far
        assert (True, False) in kinds and {fits for *_, fits in verdicts} == {True, False}


class Steep(Writer):
    """Blocks without AC coefficients, so that little stands between one DC value and the next."""

    def ac(self, chroma):
        self.code(AC_TABLES[chroma], 0x00)


@pytest.mark.parametrize("name", ALPHABETS)
def test_states_of_one_key_take_the_same_tokens(name):
    """Of one symbol and of several, near the end of int16 too, where the running DC values decide;
    these scans lead there."""
    codec, rng = JpegCodec(JpegConfig(48, 48, 25, "gray", 30)), np.random.default_rng(3)
    alphabet = codec.alphabet(name)
    grammar, spec = alphabet.grammar(), alphabet.spec
    told = [alphabet.split(codec.header + Steep(codec, rng, 0, 0).scan + EOI) for _ in range(10)]
    tokens = [(symbol,) for symbol in range(alphabet.size)]
    for _ in range(60):
        symbols = told[int(rng.integers(len(told)))]
        start = int(rng.integers(len(codec.header), len(symbols) - 8))
        token = symbols[start : start + int(rng.integers(2, 8))].tolist()
        if not set(token) & set(alphabet.atomic):  # which no merge contains
            tokens.append(tuple(token))
    reach, swing = machine.limits(spec, tokens)
    legal, again, unknown = {}, 0, 0
    for symbols in told:
        state = grammar.start()
        for symbol in symbols:
            key = int(machine.key(spec, state, reach, swing))
            if key == -1:
                unknown += 1
            else:
                found = []
                for token in tokens:
                    trial = state.copy()
                    found.append(all(grammar.advance(trial, part) for part in token))
                again += key in legal
                assert legal.setdefault(key, found) == found
            assert grammar.advance(state, int(symbol))
    assert again > 100 and unknown > 100


@pytest.mark.parametrize("name", ALPHABETS)
@pytest.mark.parametrize("config", [*CONFIGS[2:], *SMALL], ids=str)
def test_the_shortest_completion_is_what_it_says(config, name):
    """From wherever one stands the best symbol comes one nearer to the end, none nearer than that,
    and none leads away by more than GROWTH. Walks favour runs of zeros."""
    codec, rng = JpegCodec(config), np.random.default_rng(1)
    alphabet = codec.alphabet(name)
    grammar = alphabet.grammar()
    state, most = grammar.start(), machine.growth(alphabet.spec)
    for _ in range(120):
        if grammar.complete(state):
            state = grammar.start()
        need, found = grammar.shortest(state), {}
        for symbol in range(alphabet.size):
            trial = state.copy()
            if grammar.advance(trial, symbol):
                found[symbol] = trial
        lengths = [grammar.shortest(trial) for trial in found.values()]
        assert min(lengths) == need - 1 and max(lengths) <= need + most
        symbols = list(found)
        state = found[13 if 13 in found and rng.random() < 0.5 else int(rng.choice(symbols))]


@pytest.mark.parametrize("name", ALPHABETS[:3])
def test_a_block_is_as_near_to_its_end_as_it_says_at_every_coefficient(name):
    """Behind 0 to 62 coefficients, and a run of 16 zeros after them: which AC symbols are legal
    (T.81 F.1.2.2), and by how much the best one shortens the rest."""
    codec = JpegCodec(JpegConfig(16, 16, 25, "gray", 0))
    grammar = codec.alphabet(name).grammar()
    for before in range(63):
        state = grammar.start()
        for symbol in [0, *[AC_FIRST + int(AC_INDEX[0x01]), AMPLITUDE_FIRST] * before]:
            assert grammar.advance(state, symbol)
        for zeros in (False, True):
            k = 1 + before + 16 * zeros
            legal = {run << 4 | size for run in range(16) for size in range(1, 11) if k + run < 64}
            legal |= ({0xF0} if k + 16 < 64 else set()) | (set() if zeros else {0x00})
            found = np.flatnonzero(grammar.allowed(state))
            assert {int(AC_RUN_SIZES[s - AC_FIRST]) for s in found} == legal
            after = []
            for symbol in found:
                trial = state.copy()
                assert grammar.advance(trial, int(symbol))
                after.append(grammar.shortest(trial))
            assert min(after) == grammar.shortest(state) - 1
            if not grammar.advance(state, AC_FIRST + int(AC_INDEX[0xF0])):
                break
