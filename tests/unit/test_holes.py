"""Pictures with holes: what stays stays to the byte, in any arrangement, and all ends whole."""

import io
import json
import subprocess
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from jpeglm.codecs import JpegCodec, make_codec
from jpeglm.codecs.images import as_mask, region_mask
from jpeglm.config import InputError, JpegConfig, Sampling
from jpeglm.generation.engine_cpu import CpuEngine
from jpeglm.generation.given import Given
from jpeglm.generation.matcher import Constraint, Matcher, bare_prompt, hole_prompt
from jpeglm.generation.requests import Request
from jpeglm.generation.session import Session
from jpeglm.generation.sheets import enlarged, new_units
from jpeglm.holes import random_hole, spans
from jpeglm.syntax.scan import inspect_scan
from jpeglm.text import Text
from jpeglm.tokenizer import Tokenizer

from .conftest import hugging_face, random_llama

SHAPES = [
    (JpegConfig(48, 32, restart_interval=1), "jpeg-block-symbols", 380),
    (JpegConfig(32, 40, 25, "4:4:4", 1), "jpeg-symbols", 240),
    (JpegConfig(64, 16, 60, "4:2:2", 1), "jpeg-block-symbols", 300),
    (JpegConfig(24, 32, 10, "gray", 1), "jpeg-symbols", 206),
    (JpegConfig(48, 32, restart_interval=1), "jpeg-placed-symbols", 440),
    (JpegConfig(32, 40, 25, "4:4:4", 1), "jpeg-placed-symbols", 500),
    (JpegConfig(24, 32, 10, "gray", 1), "jpeg-placed-symbols", 400),
]


@pytest.fixture(scope="module", params=SHAPES, ids=lambda shape: shape[1])
def tokenizer(request, pictures):
    config, alphabet, size = request.param
    codec = JpegCodec(config)
    plain = Tokenizer.train([codec.encode(p) for p in pictures], codec, alphabet, size, 2)
    return plain.with_holes()


@pytest.fixture(scope="module")
def streams(tokenizer, pictures):
    return [tokenizer.codec.encode(picture) for picture in pictures]


def holes(tokenizer, count, seed=0):
    """Random sets of MCUs, and the shapes at the edges of what can be."""
    units, rng = tokenizer.codec.units, np.random.default_rng(seed)
    one = np.arange(units)
    yield from (one == 0, one == units - 1, one > 0, one < units - 1, one % 2 == 0, one % 2 == 1)
    for number in range(count):
        if number % 2:
            yield random_hole(rng, *tokenizer.codec.config.grid)
        else:
            hole = rng.random(units) < rng.random()
            yield hole if hole.any() and not hole.all() else one == number % units


def mcus(codec, stream):
    """The bytes of each MCU's symbols: with a restart at each, what its coded bits are."""
    symbols, starts, _ = inspect_scan(codec.scan(stream), codec.spec)
    return [symbols[a:b].tobytes() for a, b in pairwise(starts)]


def test_spans_are_the_stretches():
    chosen = np.array([1, 1, 0, 1, 0, 0, 1, 1, 1], bool)
    assert spans(chosen).tolist() == [[0, 2], [3, 1], [6, 3]]
    assert spans(~chosen).tolist() == [[2, 1], [4, 2]] and not len(spans(chosen & False))


def test_random_holes_leave_something_and_take_something():
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(500):
        hole = random_hole(rng, 3, 5)
        assert hole.any() and not hole.all()
        shares.append(hole.mean())
    assert 0.3 < np.mean(shares) < 0.6 and min(shares) < 0.1 and max(shares) > 0.9
    assert random_hole(rng, 1, 1).tolist() == [True]


def test_any_arrangement_spells_the_picture(tokenizer, streams):
    for stream in streams[:3]:
        symbols = tokenizer.alphabet.split(stream)
        for hole in holes(tokenizer, 20):
            outside, inside = tokenizer.around(symbols, hole)
            assert outside[-1] == tokenizer.hole and (inside != tokenizer.hole).all()
            whole = np.concatenate([[tokenizer.bos], outside, inside, [tokenizer.eos]])
            assert tokenizer.decode_stream(whole) == stream
            named = whole[whole > tokenizer.hole] - tokenizer.hole - 1
            assert named.tolist() == [*spans(~hole)[:, 0], *spans(hole)[:, 0]]


def test_what_is_not_there_yet_is_flat_and_the_rest_in_its_place(tokenizer, streams):
    codec, rng = tokenizer.codec, np.random.default_rng(1)
    flat = mcus(codec, codec.encode(Image.new("RGB", (8, 8), (128, 128, 128))))[0]
    for stream in streams[:3]:
        whole = mcus(codec, stream)
        for hole in holes(tokenizer, 10):
            outside, inside = tokenizer.around(tokenizer.alphabet.split(stream), hole)
            for upto in (0, 1, int(rng.integers(1, len(inside)))):
                cut = tokenizer.decode_stream(np.concatenate([outside, inside[:upto]]))
                assert codec.check(cut).valid
                shown = mcus(codec, cut)
                assert all(shown[m] == whole[m] for m in np.flatnonzero(~hole))
                if upto < 2:
                    assert all(shown[m] == flat for m in np.flatnonzero(hole)[1:])


def test_any_ids_at_all_spell_a_whole_picture(tokenizer):
    """Addresses in any order, twice, at the end, without content or with far too much of it."""
    rng = np.random.default_rng(3)
    kinds = [(0, tokenizer.bos), (tokenizer.hole, tokenizer.vocab_size), (0, tokenizer.vocab_size)]
    for number in range(200):
        low, high = zip(*(kinds[k] for k in rng.integers(0, 3, int(rng.integers(0, 60)))), (0, 1))
        ids = rng.integers(low, high)
        assert tokenizer.codec.check(tokenizer.decode_stream(ids)).valid, number
    for wrong in (-1, tokenizer.vocab_size, 10**9):
        with pytest.raises(InputError, match="unknown"):
            tokenizer.decode_stream(np.array([0, tokenizer.hole + 1, wrong]))


def test_tokens_are_kept_and_read_by_others(tokenizer, tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    text = Text(np.zeros((0, 2), np.int32))
    plain = Tokenizer(
        tokenizer.codec, tokenizer.alphabet.name, tokenizer.merges, 2, ("cat", "dog"), text
    )
    for number, one in enumerate((tokenizer, plain.with_holes())):
        assert one.with_holes() is one
        folder = tmp_path / str(number)
        one.save(folder)
        again = Tokenizer.load(folder)
        assert again.fingerprint == one.fingerprint and again.vocab_size == one.vocab_size
        assert (again.hole, again.addresses, again.n_classes) == (one.hole, one.addresses, 2)
        assert again.to_dict()["holes"] is True
        peer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        assert peer.get_vocab_size() == one.vocab_size
        assert peer.encode("<s><hole><mcu_1><mcu_0></s>").ids == [
            one.bos, one.hole, one.hole + 2, one.hole + 1, one.eos
        ]  # fmt: skip
    assert plain.fingerprint != plain.with_holes().fingerprint
    assert plain.with_holes().decode_text(np.array([one.hole, one.hole + 1])) == ""
    stored = json.loads((folder / "tokenizer.json").read_text())
    added = stored["added_tokens"]
    for wrong, why in (
        ([added[4], *added[:4]], "<hole> stands before"),
        (added[:6], "address 1 units"),
        (added[5:] + added[:5], "names of classes"),
    ):
        (folder / "tokenizer.json").write_text(json.dumps(stored | {"added_tokens": wrong}))
        with pytest.raises(InputError, match=why):
            Tokenizer.load(folder)
    stored["added_tokens"].pop()
    (folder / "tokenizer.json").write_text(json.dumps(stored))
    with pytest.raises(InputError, match=r"vocabulary|added_tokens"):
        Tokenizer.load(folder)


@pytest.mark.parametrize(
    ("config", "alphabet"),
    [
        (JpegConfig(32, 32), "jpeg-block-symbols"),
        (JpegConfig(32, 32, restart_interval=2), "jpeg-symbols"),
        (JpegConfig(32, 32, restart_interval=2), "jpeg-placed-symbols"),
        (JpegConfig(32, 32, restart_interval=1), "jpeg-coarse-symbols"),
        (JpegConfig(32, 32, restart_interval=1), "bytes"),
        (JpegConfig(32, 32, restart_interval=1), "paper-bytes"),
    ],
)
def test_pictures_whose_parts_need_each_other_have_no_holes(config, alphabet):
    with pytest.raises(InputError, match="--restart-interval 1"):
        Tokenizer(JpegCodec(config), alphabet, np.zeros((0, 2), np.int32)).with_holes()


def test_every_walk_fills_the_hole_within_its_budget(tokenizer, streams):
    """Random legal tokens, with the least budget and more; masks found again are those afresh."""
    constraint, rng = Constraint(tokenizer), np.random.default_rng(2)
    codec = tokenizer.codec
    for number, hole in enumerate(holes(tokenizer, 12)):
        stream = streams[number % len(streams)]
        prompt = hole_prompt(tokenizer, stream, hole, tokenizer.class_token(number % 2))
        least = len(prompt.ids) + Matcher(constraint, prompt).tokens_to_end
        with pytest.raises(InputError, match="--max-tokens"):
            Matcher(constraint, prompt, least - 1)
        for more in (0, 7, 100_000):
            matcher, left, seen = Matcher(constraint, prompt, least + more), least + more, 0
            left -= len(prompt.ids)
            while not matcher.ended:
                assert matcher.tokens_to_end <= left and seen <= matcher.units
                seen, allowed = matcher.units, matcher.allowed()
                assert matcher.complete == allowed[tokenizer.eos]
                if rng.random() < 0.05:
                    afresh = Matcher(Constraint(tokenizer), prompt, least + more)
                    assert all(map(afresh.accept, matcher.ids))
                    assert (afresh.allowed() == allowed).all()
                token = int(rng.choice(np.flatnonzero(allowed)))
                if token > tokenizer.eos:
                    assert allowed.sum() == 1
                assert matcher.accept(token)
                left -= 1
            assert matcher.units == codec.units
            made = tokenizer.decode_stream(np.concatenate([prompt.ids, matcher.ids]))
            assert codec.check(made).valid
            old, new = mcus(codec, stream), mcus(codec, made)
            assert all(old[m] == new[m] for m in np.flatnonzero(~hole))
            matcher.rollback(len(matcher.ids))
            assert matcher.tokens_to_end == least - len(prompt.ids)


def test_its_own_content_is_legal_and_nothing_else_of_another_length(tokenizer, streams):
    for number, hole in enumerate(holes(tokenizer, 8)):
        stream = streams[number % len(streams)]
        _, inside = tokenizer.around(tokenizer.alphabet.split(stream), hole)
        matcher = Matcher(tokenizer, hole_prompt(tokenizer, stream, hole, tokenizer.bos))
        assert not matcher.accept(tokenizer.eos)
        assert all(map(matcher.accept, inside[1:].tolist())) and matcher.complete
        assert not matcher.accept(inside[0]) and matcher.accept(tokenizer.eos)


def test_a_session_fills_holes_beside_everything_else(tokenizer, streams, tmp_path):
    """Alone and in company the same; libjpeg's own tools take what comes without a word."""
    constraint = Constraint(tokenizer)
    engine = CpuEngine(*random_llama(tokenizer.vocab_size, 1200), threads=1)
    made = [Request(bare_prompt(tokenizer.bos), Sampling(), 0, 0, tag=0)]
    wanted = {}
    for number, hole in enumerate(holes(tokenizer, 20), 1):
        stream = streams[number % len(streams)]
        head = tokenizer.class_token(0) if number % 3 else tokenizer.bos
        prompt = hole_prompt(tokenizer, stream, hole, head)
        least = len(prompt.ids) + Matcher(constraint, prompt).tokens_to_end
        chooser = Sampling(1.0, 30, guidance=2.0 if number % 3 == 1 else 1.0)
        budget = least if number % 4 == 0 else None
        wanted[number] = stream, hole, prompt
        made.append(Request(prompt, chooser, 5, number, budget, watch="unit", tag=number))
    found, units = {}, {}
    for event in Session(engine, constraint).run(made, batch=7):
        found.setdefault(event.request.tag, []).append(event.ids)
        assert event.units >= units.get(event.request.tag, 0)
        units[event.request.tag] = event.units
    for number, (stream, hole, prompt) in wanted.items():
        ids = np.concatenate(found[number])
        alone = [e.ids for e in Session(engine, constraint).run([made[number]])]
        assert np.concatenate(alone).tolist() == ids.tolist()
        assert units[number] == tokenizer.codec.units
        picture = tokenizer.decode_stream(np.concatenate([prompt.ids, ids]))
        old, new = (mcus(tokenizer.codec, one) for one in (stream, picture))
        assert all(old[m] == new[m] for m in np.flatnonzero(~hole))
        file = tmp_path / "x.jpg"
        file.write_bytes(tokenizer.codec.wrap(picture))
        shown = subprocess.run(["djpeg", str(file)], capture_output=True)
        assert shown.returncode == 0 and not shown.stderr
        again = subprocess.run(
            ["jpegtran", "-copy", "none", "-restart", "1B", str(file)], capture_output=True
        )
        assert again.stdout == file.read_bytes()
    with pytest.raises(InputError, match="under the grammar"):
        Session(engine, constraint).add(replace(made[1], chooser=Sampling(grammar=False)))


def test_what_fills_a_hole_is_scored_as_transformers_does(tokenizer, streams):
    torch = pytest.importorskip("torch")
    config, weights = random_llama(tokenizer.vocab_size, 1200)
    engine, peer = CpuEngine(config, weights, threads=1), hugging_face(config, weights)
    hole = np.arange(tokenizer.codec.units) % 2 == 1
    stream = min(streams, key=len)
    prompt = hole_prompt(tokenizer, stream, hole, tokenizer.bos)
    _, inside = tokenizer.around(tokenizer.alphabet.split(stream), hole)
    ids = np.concatenate([inside[1:], [tokenizer.eos]])
    (event,) = Session(engine, Constraint(tokenizer)).run([Request(prompt, Given(ids))])
    row = torch.tensor([[*prompt.ids.tolist(), *ids.tolist()]])
    with torch.no_grad():
        logp = torch.log_softmax(peer(row).logits[0], -1)
    expected = [-float(logp[len(prompt.ids) - 1 + i, token]) for i, token in enumerate(ids)]
    np.testing.assert_allclose(event.nats, expected, rtol=1e-4, atol=1e-4)
    legal = event.reading.costs[1]
    assert (legal <= event.nats + 1e-9).all() and np.isfinite(legal).all()
    assert (legal[ids >= tokenizer.eos] < 1e-6).all()
    assert event.reading.units[0] == (~hole).sum() and event.units == tokenizer.codec.units


@pytest.mark.parametrize("watch", ["end", "unit"])
def test_addresses_in_a_hole_cost_nothing(tokenizer, streams, watch):
    """Training leaves them out, and the grammar gives them: of what is drawn, content costs."""
    engine = CpuEngine(*random_llama(tokenizer.vocab_size, 1200), threads=1)
    session = Session(engine, Constraint(tokenizer))
    hole = np.arange(tokenizer.codec.units) % 2 == 1
    prompt = hole_prompt(tokenizer, streams[0], hole, tokenizer.bos)
    drawn = list(session.run([Request(prompt, Sampling(), 0, 0, watch=watch)]))
    ids, nats = (np.concatenate([getattr(one, key) for one in drawn]) for key in ("ids", "nats"))
    (read,) = session.run([Request(prompt, Given(ids))])
    address = ids > tokenizer.hole
    assert address.sum() == hole.sum() - 1 and (nats[address] == 0).all()
    np.testing.assert_allclose(nats[~address], read.nats[~address], rtol=1e-6, atol=1e-6)
    assert drawn[-1].bits == pytest.approx(nats.sum() / np.log(2))
    assert (read.nats[address] > 1).all()


@pytest.mark.parametrize("kind", ["bos", "class", "hole", "negative", "beyond", "late", "again"])
def test_a_stream_that_is_given_holds_what_may_come(tokenizer, streams, kind):
    """What kernels look up by: a wrong id would be read outside of their tables."""
    engine = CpuEngine(*random_llama(tokenizer.vocab_size, 1200), threads=1)
    hole = np.arange(tokenizer.codec.units) % 2 == 1
    stream = min(streams, key=len)
    prompt = hole_prompt(tokenizer, stream, hole, tokenizer.bos)
    _, inside = tokenizer.around(tokenizer.alphabet.split(stream), hole)
    ids = inside[1:].astype(np.int64)
    address = int(np.flatnonzero(ids > tokenizer.hole)[0])
    last = int(np.flatnonzero(ids > tokenizer.hole)[-1])
    wrong = {
        "bos": tokenizer.bos, "class": tokenizer.class_token(1), "hole": tokenizer.hole,
        "negative": -1, "beyond": tokenizer.vocab_size, "late": ids[address] + 1,
        "again": ids[address],
    }[kind]  # fmt: skip
    ids[last if kind == "again" and last != address else address] = wrong
    if kind == "again" and last == address:
        ids = np.concatenate([ids, [wrong]])
    session = Session(engine, Constraint(tokenizer))
    with pytest.raises(InputError, match="none of a picture's"):
        session.add(Request(prompt, Given(ids)))
    with pytest.raises(InputError, match="none of a picture's"):
        session.add(Request(bare_prompt(tokenizer.bos), Given(inside)))
    assert not session.busy


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_masks_are_rounded_to_mcus_and_fitted_as_their_pictures():
    codec = make_codec({"codec": "jpeg", "width": 64, "height": 64, "restart_interval": 1})
    dot = np.zeros((64, 64), np.uint8)
    dot[17, 47] = 255
    assert np.flatnonzero(codec.covered(as_mask(dot, (64, 64)))).tolist() == [4 + 2]
    assert np.flatnonzero(codec.covered(as_mask(dot > 0, (64, 64)))).tolist() == [4 + 2]
    for white in (False, True):  # what a drawing program gives: strokes on an empty layer
        layer = np.full((64, 64, 4), 255 * white, np.uint8)
        layer[..., 3] = dot
        layer[17, 47] = 255
        for given in (layer, Image.fromarray(layer), png(layer)):
            assert np.flatnonzero(codec.covered(as_mask(given, (64, 64)))).tolist() == [4 + 2]
    dot[17, 47] = 127
    assert not codec.covered(as_mask(dot, (64, 64))).any()
    wide = region_mask((100, 0, 50, 100), (300, 100))  # whose middle third is cut out
    assert np.flatnonzero(codec.covered(wide).reshape(4, 4).all(0)).tolist() == [0, 1]
    assert not codec.covered(region_mask((0, 0, 99, 100), (300, 100))).any()
    padded = make_codec(codec.to_dict() | {"fit": "pad"})
    grid = padded.covered(region_mask((0, 0, 300, 100), (300, 100))).reshape(4, 4)
    assert grid.all(1).tolist() == [False, True, True, False] and not grid[0].any()
    line = np.zeros((1000, 1000), np.uint8)
    line[400] = 255  # a sixteenth of a pixel of the codec's
    assert np.flatnonzero(codec.covered(as_mask(line, (1000, 1000)))).tolist() == [4, 5, 6, 7]


def test_a_line_goes_around_what_is_new():
    codec = make_codec({"codec": "jpeg", "width": 32, "height": 32, "restart_interval": 1})
    new = np.array([[True, False], [False, False]])
    grey = Image.new("RGB", (32, 32), (128, 128, 128))
    shown = np.asarray(enlarged(grey, new))
    assert shown.shape == (192, 192, 3)
    line = (shown == 0).all(2)
    assert line[:96, 96].all() and line[96, :96].all() and line.sum() == 2 * 96
    assert (np.asarray(enlarged(grey)) == 128).all()
    call = SimpleNamespace(units_kept=3, settings={})
    assert new_units(codec, call).tolist() == [False, False, False, True]
    call.settings = {"hole": [0, 2]}
    assert new_units(codec, call).tolist() == [True, False, True, False]


@pytest.mark.parametrize("fit", ["crop", "top", "pad"])
@pytest.mark.parametrize("size", [(4000, 3000), (3001, 4003), (64, 64), (63, 20)])
def test_each_pixel_of_a_mask_counts(fit, size):
    """However large the picture is: the MCU that its middle falls into, unless it is cut off."""
    codec = make_codec({"codec": "jpeg", "width": 64, "height": 64, "restart_interval": 1})
    rng = np.random.default_rng(0)
    scale = (max if fit == "pad" else min)(size[0] / 64, size[1] / 64)
    kept = 0
    for _ in range(12):
        place = rng.integers(0, size)
        mask = Image.new("RGB", size)
        mask.putpixel(tuple(place.tolist()), (255, 255, 255))
        share = (0.5, 0.0 if fit == "top" else 0.5)
        x, y = ((place + 0.5) - (np.array(size) - 64 * scale) * share) / scale / 16
        near = min(x % 1, 1 - x % 1, y % 1, 1 - y % 1) < 1 / 16 / min(scale, 1)
        if near:  # one of the codec's pixels from an edge: either side is right
            continue
        found = np.flatnonzero(codec.covered(mask, fit))
        if not (0 <= x < 4 and 0 <= y < 4):
            assert not len(found)
            continue
        kept += 1
        assert int(y) * 4 + int(x) in found
        if scale >= 1:
            assert len(found) == 1
    assert kept


@pytest.mark.parametrize("region", [(64, 0, 5, 5), (0, 0, 0, 5), (-9, 0, 9, 5), (5, 5, -2, 2)])
def test_a_region_without_pixels_is_refused(region):
    empty = region[2] < 1 or region[3] < 1
    with pytest.raises(InputError, match="at least 1" if empty else "outside the picture"):
        region_mask(region, (64, 64))


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(InputError, match=r"64 × 32 pixels, its picture 64 × 64"):
        as_mask(np.zeros((32, 64), np.uint8), (64, 64))
