"""The JPEG automaton and alphabets, against Pillow's streams and libjpeg's own tools."""

import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jpeglm.codecs import JpegCodec
from jpeglm.config import InputError, JpegConfig
from jpeglm.syntax import machine
from jpeglm.syntax.alphabet import ALPHABETS
from jpeglm.syntax.jpeg import AC_FIRST, AMPLITUDE_FIRST, SYMBOLS, symbol_name
from jpeglm.syntax.jpeg_tables import AC_INDEX, AC_RUN_SIZES, AC_TABLES, DC_TABLES, ZIGZAG
from jpeglm.syntax.scan import SYMBOLS_A_BIT, StreamError, inspect_scan, write_scan

SETTINGS = [
    JpegConfig(64, 64, 25, "4:2:0", 0),
    JpegConfig(64, 48, 25, "4:2:0", 1),
    JpegConfig(80, 48, 90, "4:2:0", 4),
    JpegConfig(64, 40, 50, "4:2:2", 3),
    JpegConfig(40, 24, 75, "4:4:4", 0),
    JpegConfig(48, 40, 25, "gray", 5),
]
IDS = [f"{c.width}x{c.height}-q{c.quality}-{c.subsampling}-r{c.restart_interval}" for c in SETTINGS]


def test_tables_are_the_standards():
    # T.81 tables K.3 to K.6: a few codes that the standard prints.
    assert (DC_TABLES[0].code[0], DC_TABLES[0].length[0]) == (0b00, 2)
    assert (DC_TABLES[0].code[11], DC_TABLES[0].length[11]) == (0b111111110, 9)
    assert (DC_TABLES[1].code[11], DC_TABLES[1].length[11]) == (0b11111111110, 11)
    assert (AC_TABLES[0].code[0x00], AC_TABLES[0].length[0x00]) == (0b1010, 4)
    assert (AC_TABLES[0].code[0xF0], AC_TABLES[0].length[0xF0]) == (0b11111111001, 11)
    assert (AC_TABLES[0].code[0x11], AC_TABLES[0].length[0x11]) == (0b1100, 4)
    assert (AC_TABLES[1].code[0xF0], AC_TABLES[1].length[0xF0]) == (0b1111111010, 10)
    assert AC_TABLES[0].code[0xFA] == AC_TABLES[1].code[0xFA] == 0b1111111111111110
    assert ZIGZAG[:10].tolist() == [0, 1, 8, 16, 9, 2, 3, 10, 17, 24] and ZIGZAG[63] == 63


def test_there_are_204_symbols():
    assert SYMBOLS == 204
    assert len({symbol_name(s, 1) for s in range(SYMBOLS)}) == SYMBOLS
    assert AC_INDEX[0x01] == 2 and AC_INDEX[0xFA] == len(AC_RUN_SIZES) - 1
    assert [symbol_name(s, 1) for s in (12, 13, 203)] == ["EOB", "ZRL", "amp 1111"]


def test_block_symbols_say_where_a_dc_size_stands(pictures):
    codec = JpegCodec(JpegConfig(48, 32))
    plain, named = codec.alphabet("jpeg-symbols"), codec.alphabet("jpeg-block-symbols")
    assert named.size == 204 + 5 * 12
    stream = codec.encode(pictures[0])
    symbols, other = plain.split(stream), named.split(stream)
    sizes = np.flatnonzero(symbols < 12)
    assert len(sizes) == 6 * codec.units
    for i, place in enumerate(sizes):
        expected = symbols[place] if i % 6 == 0 else 204 + 12 * (i % 6 - 1) + symbols[place]
        assert other[place] == expected
    assert named.symbol_name(other[sizes[5]]) == f"DC {symbols[sizes[5]]} block 5"
    rest = np.delete(np.arange(len(symbols)), sizes)
    assert (symbols[rest] == other[rest]).all()


PLACED = [
    *SETTINGS,
    JpegConfig(40, 24, 75, "4:4:4", 1),
    JpegConfig(40, 24, 75, "4:4:4", 4),
    JpegConfig(40, 40, 25, "gray", 0),
    JpegConfig(40, 40, 25, "gray", 1),
    JpegConfig(16, 16, 25, "4:2:0", 1),
    JpegConfig(8, 8, 25, "gray", 0),
]


@pytest.mark.parametrize("config", PLACED, ids=str)
def test_placed_symbols_say_which_mcu_begins(config, pictures):
    """As block symbols, but for the DC size of each MCU's first block; the names of other MCUs are
    illegal there."""
    codec = JpegCodec(config)
    named, placed = codec.alphabet("jpeg-block-symbols"), codec.alphabet("jpeg-placed-symbols")
    blocks, units, grammar = len(codec.components), codec.units, placed.grammar()
    assert placed.size == 204 + 12 * (blocks - 1) + 12 * (units - 1)
    assert len({placed.symbol_name(s) for s in range(placed.size)}) == placed.size
    first = np.append(0, 204 + 12 * (blocks - 1 + np.arange(units - 1)))
    for picture in pictures[:3]:
        stream = codec.encode(picture)
        expected, symbols = named.split(stream), placed.split(stream)
        starts = np.flatnonzero(expected < 12)
        expected[starts] += first.astype(np.int32)
        assert (symbols == expected).all() and placed.join(symbols) == stream
        assert [placed.symbol_name(s).partition(" MCU ")[2] for s in symbols[starts]] == [
            str(m or "") for m in range(units)
        ]
        state = grammar.start()
        for place, symbol in enumerate(symbols.tolist()):
            if place in starts:
                low = first[np.searchsorted(starts, place)]
                assert np.flatnonzero(grammar.allowed(state)).tolist() == [*range(low, low + 12)]
            assert grammar.advance(state, symbol)


@pytest.mark.parametrize("config", SETTINGS, ids=IDS)
def test_streams_of_pillow_are_accepted_and_come_back(config, pictures):
    codec = JpegCodec(config)
    for picture in pictures:
        stream = codec.encode(picture)
        verdict = codec.check(stream)
        assert verdict.valid and verdict.dc_fits
        for name in ALPHABETS:
            alphabet = codec.alphabet(name)
            symbols = alphabet.split(stream)
            assert symbols.max() < alphabet.size
            assert alphabet.join(symbols) == stream


@pytest.mark.parametrize("name", ALPHABETS)
@pytest.mark.parametrize("config", SETTINGS, ids=IDS)
def test_grammar_accepts_and_bounds_real_streams(config, name, pictures):
    """Every symbol is legal, `complete` is true at the end only, and `shortest` never exceeds what
    the stream really takes nor falls by more than one a symbol (which would make it inexact)."""
    codec = JpegCodec(config)
    alphabet = codec.alphabet(name)
    grammar = alphabet.grammar()
    symbols = alphabet.split(codec.encode(pictures[0]))
    state = grammar.start()
    for place, symbol in enumerate(symbols):
        bound = grammar.shortest(state)
        assert 0 < bound <= len(symbols) - place
        assert not grammar.complete(state)
        assert grammar.advance(state, int(symbol))
        assert grammar.shortest(state) >= bound - 1
    assert grammar.complete(state) and grammar.shortest(state) == 0
    assert not grammar.allowed(state).any()


def test_no_mcu_of_coarse_symbols_is_whole_before_its_ac_coefficients(pictures):
    codec = JpegCodec(JpegConfig(64, 48))
    alphabet = codec.alphabet("jpeg-coarse-symbols")
    symbols = alphabet.split(codec.encode(pictures[0]))
    starts = machine.starts_of(alphabet.spec, symbols, codec.units)
    last_dc = int(np.flatnonzero((symbols < AC_FIRST) | (symbols >= SYMBOLS))[-1])
    assert last_dc < starts[1] and (np.diff(starts) > 0).all() and starts[-1] == len(symbols)


def random_stream(alphabet, rng, slack):
    """Uniformly random legal symbols, within `slack` symbols of the shortest possible stream."""
    grammar = alphabet.grammar()
    state = grammar.start()
    budget = grammar.shortest(state) + slack
    symbols = []
    while not grammar.complete(state):
        for symbol in rng.permutation(alphabet.size):
            trial = state.copy()
            if grammar.advance(trial, int(symbol)) and (
                len(symbols) + 1 + grammar.shortest(trial) <= budget
            ):
                break
        else:
            raise AssertionError("dead end: no legal symbol within the budget")
        state = trial
        symbols.append(int(symbol))
    assert len(symbols) <= budget
    return alphabet.join(np.array(symbols))


@pytest.mark.parametrize("name", ALPHABETS)
@pytest.mark.parametrize("config", SETTINGS, ids=IDS)
@pytest.mark.parametrize("slack", [0, 40, 2000])
def test_random_legal_symbols_end_in_canonical_streams(config, name, slack):
    rng = np.random.default_rng(slack)
    codec = JpegCodec(config)
    stream = random_stream(codec.alphabet(name), rng, slack)
    assert codec.check(stream).valid


@pytest.mark.skipif(not shutil.which("djpeg"), reason="libjpeg-turbo-progs is not installed")
@pytest.mark.parametrize("name", ALPHABETS)
@pytest.mark.parametrize("interval", [0, 1, 4])
def test_libjpeg_agrees_with_random_streams(name, interval, tmp_path):
    rng = np.random.default_rng(interval)
    codec = JpegCodec(JpegConfig(64, 32, 25, "4:2:0", interval))
    alphabet = codec.alphabet(name)
    for i in range(5):
        stream = random_stream(alphabet, rng, int(rng.integers(0, 1500)))
        file = tmp_path / f"{i}.jpg"
        file.write_bytes(codec.wrap(stream))
        shown = subprocess.run(["djpeg", str(file)], capture_output=True)
        assert shown.returncode == 0 and shown.stderr == b""
        assert jpegtran(file, interval) == file.read_bytes()


def jpegtran(file, interval):
    command = ["jpegtran", "-copy", "none"]
    if interval:
        command += ["-restart", f"{interval}B"]
    return subprocess.run([*command, str(file)], capture_output=True, check=True).stdout


@pytest.mark.skipif(not shutil.which("jpegtran"), reason="libjpeg-turbo-progs is not installed")
def test_jpegtran_gives_our_bytes_back(pictures, tmp_path):
    for config in SETTINGS:
        codec = JpegCodec(config)
        file = tmp_path / "x.jpg"
        file.write_bytes(codec.wrap(codec.encode(pictures[0])))
        assert jpegtran(file, config.restart_interval) == file.read_bytes()


@pytest.fixture(scope="module")
def random_scans():
    """A few random legal scans of each setting, to be damaged."""
    rng = np.random.default_rng(7)
    codecs = [JpegCodec(config) for config in SETTINGS]
    return [
        (codec, codec.scan(random_stream(codec.alphabet("jpeg-symbols"), rng, 40)))
        for codec in codecs
        for _ in range(3)
    ]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_streams_never_pass_as_something_else(random_scans, data):
    """Whatever a changed byte does, the reader and the automaton agree on whether the stream is
    canonical, and what the reader accepts is written back to the same bytes."""
    codec, scan = data.draw(st.sampled_from(random_scans))
    scan = bytearray(scan)
    place = data.draw(st.integers(0, len(scan) - 1))
    scan[place] = data.draw(st.integers(0, 255))
    try:
        symbols, _, fits = inspect_scan(bytes(scan), codec.spec)
    except StreamError as error:
        assert 0 <= error.place <= len(scan)
        assert not accepted_by_automaton(codec, bytes(scan))
    else:
        assert write_scan(symbols, codec.spec)[0] == bytes(scan)
        assert accepted_by_automaton(codec, bytes(scan)) or not fits


def accepted_by_automaton(codec, scan):
    grammar = codec.alphabet("paper-bytes").grammar()
    state = grammar.start()
    stream = codec.header + scan + b"\xff\xd9"
    return all(grammar.advance(state, byte) for byte in stream) and grammar.complete(state)


@pytest.mark.parametrize("marker", [0xD0, 0xD9, 0xDA])
def test_a_marker_inside_the_data_is_named(marker, pictures):
    codec = JpegCodec(JpegConfig(64, 64))
    scan = codec.scan(codec.encode(pictures[0]))
    for place in range(1, 200):
        if scan[place - 1] != 0xFF:
            with pytest.raises(StreamError, match=f"a marker stands inside .* at byte {place}$"):
                inspect_scan(scan[:place] + bytes([0xFF, marker]) + scan[place:], codec.spec)


@given(st.binary(max_size=60))
@settings(max_examples=100, deadline=None)
def test_joining_never_raises_and_showing_neither(junk):
    codec = JpegCodec(JpegConfig(32, 32, 25, "4:2:0", 1))
    for name in ALPHABETS:
        alphabet = codec.alphabet(name)
        stream = alphabet.join(np.frombuffer(junk, np.uint8).astype(np.int32) % alphabet.size)
        assert codec.show(stream).size == (32, 32)
    assert codec.show(junk).size == (32, 32)
    with pytest.raises(InputError, match="at byte"):
        codec.decode(junk)


def test_symbols_repair_themselves():
    codec = JpegCodec(JpegConfig(32, 32))
    alphabet = codec.alphabet("jpeg-symbols")
    assert codec.check(alphabet.join(np.array([3, 174, 200], np.int32))).valid
    assert codec.check(alphabet.join(np.array([], np.int32))).valid


def test_running_dc_stays_within_int16():
    """Steepest possible DC rises: the grammar stops them before int16, `check` names them."""
    codec = JpegCodec(JpegConfig(64, 64, 25, "gray", 0))
    grammar = codec.alphabet("jpeg-symbols").grammar()
    state = grammar.start()
    rises = 0
    while grammar.advance(state, 11):
        for symbol in (203, 203, 174 + 2 + 4 + 7, 12):  # amplitude 2047 in 4 + 4 + 3 bits, EOB
            assert grammar.advance(state, symbol)
        rises += 1
    assert rises == 16 and grammar.advance(state, 0)


def test_check_names_dc_that_leaves_int16():
    codec = JpegCodec(JpegConfig(64, 64, 25, "gray", 0))
    block = "111111110" + "1" * 11 + "1010"  # DC size 11, difference 2047, EOB (tables K.3, K.5)
    bits = block * 17 + "001010" * 47
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    verdict = codec.check(codec.header + data + b"\xff\xd9")
    assert verdict.valid and not verdict.dc_fits and "int16" in str(verdict)


def test_prefixes_at_every_mcu(pictures):
    for config in SETTINGS[:3]:
        codec = JpegCodec(config)
        stream = codec.encode(pictures[1])
        for name in ALPHABETS:
            alphabet = codec.alphabet(name)
            whole = alphabet.split(stream)
            for units in range(codec.units + 1):
                if name == "jpeg-coarse-symbols" and 0 < units < codec.units:
                    with pytest.raises(InputError, match="no part of it can be kept"):
                        alphabet.prefix(stream, units)
                    continue
                prefix = alphabet.prefix(stream, units)
                known = len(prefix.symbols)
                assert (prefix.symbols == whole[:known]).all()
                # A symbol less and the last of these MCUs is not there.
                state, taken = machine.start_state(alphabet.spec), 0
                while units and machine.units(alphabet.spec, state) < units:
                    assert machine.step(alphabet.spec, state, int(whole[taken]))
                    taken += 1
                assert not units or known + (prefix.bits > 0) == taken
                if prefix.bits:
                    assert prefix.value >> (8 - prefix.bits) == whole[known] >> (8 - prefix.bits)
        assert codec.cut(stream, codec.units) == stream
        assert codec.check(codec.cut(stream, 0)).valid


@pytest.mark.parametrize("subsampling", ["4:2:0", "4:4:4", "gray"])
def test_a_scan_of_the_shortest_symbols_fits(subsampling):
    """Every AC coefficient in three bits, a run of none and a size of one: more symbols a byte than
    any picture has. They come back, and so does the scan."""
    codec = JpegCodec(JpegConfig(64, 64, subsampling=subsampling))
    block = [0] + [AC_FIRST + int(AC_INDEX[0x01]), AMPLITUDE_FIRST] * 63
    symbols = np.array(block * (codec.config.mcus * len(codec.components)), np.int32)
    scan, _, used = write_scan(symbols, codec.spec)
    assert used == len(symbols) > 4 * len(scan) + 8
    assert len(symbols) <= 8 * len(scan) * SYMBOLS_A_BIT + 2
    assert (inspect_scan(scan, codec.spec)[0] == symbols).all()
