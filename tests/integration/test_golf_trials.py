"""Trials of the race for bits: which fields of an entry there are, which values they take, and
which of them fit one another."""

import numpy as np
import pytest

from jpeglm.config import InputError

from .test_golf import Given, entry

torch = pytest.importorskip("torch")


def every(golf):
    """All fields of the kit's entry with their values."""
    kind = golf("kit.entry").Entry
    return {name: getattr(kind, name) for name in golf("trial").fields_of(kind)}


def refused(golf, changes, told, record="00-llama"):
    """One sentence, which has these words, in place of a trial."""
    with pytest.raises(InputError, match=told) as error:
        golf("trial").changed(golf("race").module_of(record).Entry, changes)
    assert "\n" not in str(error.value)


def test_a_trial_is_its_record_with_other_fields(golf):
    trial, race = golf("trial"), golf("race")
    known = every(golf)
    assert set(known) == set(golf("kit.entry").Entry.__annotations__) and len(known) > 20
    for path in sorted(race.RECORDS.glob("*/entry.py")):
        kind = race.module_of(path.parent.name).Entry
        assert set(trial.fields_of(kind)) == set(known)
        own = {name: getattr(kind, name) for name in known}
        same = trial.changed(kind, own)
        assert issubclass(same, kind) and {n: getattr(same, n) for n in known} == own
        other = trial.changed(kind, {"layers": 5, "table_rate": 4, "attending": None})
        assert (other.layers, other.table_rate, other.attending) == (5, 4, None)
        assert other.width == kind.width and kind.layers == 4


WRONG = {
    "int": ("x", 1.5, True, None, (1,), 10**30),
    "float": ("x", False, None, (1.0,), float("inf"), float("nan")),
    "bool": (0, 3, "x", None, 1.0),
    "str": (3, True, None, 0.5),
    "tuple[float, float]": ("x", 3, True, None),
    "tuple[int, ...] | None": ("x", 3, True, 0.5),
}


def test_a_value_is_of_its_fields_type(golf):
    trial = golf("trial")
    kind = golf("kit.entry").Entry
    for name, told in trial.fields_of(kind).items():
        for value in WRONG[told]:
            refused(golf, {name: value}, f"^{name} is ")
        if told == "float":
            for value in (0, 1):
                least, most = golf("kit.entry").RANGES[name]
                if least <= value <= most:
                    assert getattr(trial.changed(kind, {name: value}), name) == value
    for name in ("wide", "model", "check_fields", "inputs", "tokenizer", "__init__", "__doc__", ""):
        refused(golf, {name: 1}, "Entry has no setting .*; it knows activation, alphabet, ")


def test_a_record_of_another_kind_has_fields_too(golf, monkeypatch, tmp_path):
    """They are judged by what its class annotates, or else by the values that they have."""
    trial, task = golf("trial"), golf("task")

    class Own(task.Entry):
        tokens_a_step, clip = 512, 1.0
        smear = 0.5
        depth: int = 3

        @property
        def tokenizer(self):
            return None

    assert trial.fields_of(Own) == {
        "tokens_a_step": "int", "clip": "float", "smear": "float", "depth": "int"
    }  # fmt: skip
    assert trial.changed(Own, {"smear": 1, "depth": 2}).smear == 1
    for changes in ({"smear": "x"}, {"depth": 0.5}, {"tokenizer": 1}, {"inputs": 1}, {"clip": ""}):
        with pytest.raises(InputError):
            trial.changed(Own, changes)

    class Wrong(golf("kit.entry").Entry):
        width = 12.5
        more = 3

    with pytest.raises(InputError, match=r"width is 12\.5; it must be int"):
        trial.changed(Wrong, {})
    Wrong.width = 128
    assert trial.changed(Wrong, {"more": 4}).more == 4

    class Unfit(golf("kit.entry").Entry):
        near = True

    with pytest.raises(InputError, match="near is True, which needs context=True"):
        trial.changed(Unfit, {})


def test_numbers_are_of_their_range(golf):
    kit, trial = golf("kit.entry"), golf("trial")
    told = trial.fields_of(kit.Entry)
    numbers = {name for name in told if told[name] in ("int", "float")}
    assert set(kit.RANGES) == numbers - {"vocabulary"}  # of which the tokenizer speaks
    room = {"width": 4096, "heads": 1}
    for name, (least, most) in kit.RANGES.items():
        step = 1 if told[name] == "int" else 1e-7
        for value in (least, most):
            fits = {key: other for key, other in room.items() if key != name}
            assert getattr(trial.changed(kit.Entry, fits | {name: value}), name) == value
        for value in (least - step, most + step, -least - 1):
            refused(golf, {name: value}, f"^{name} is .*; it must be from ")
    for betas in ((0.9,), (0.9, 0.95, 0.99), (0.9, 1.0), (-0.1, 0.9), (0.9, "x"), (True, 0.9), ()):
        refused(golf, {"betas": betas}, "two numbers from 0 to below 1")
    assert trial.changed(kit.Entry, {"betas": (0, 0.5)}).betas == (0, 0.5)
    for word in ("gelu", "", "SILU"):
        refused(golf, {"activation": word}, "activation is .*; choose one of silu, relu2$")


def test_heads_share_the_channels_in_pairs(golf, shipped, streams):
    """What is accepted computes, and is not the same without places."""
    task, trial, kit = golf("task"), golf("trial"), golf("kit.entry")
    ids = torch.from_numpy(task.sequence(shipped.tokenizer, streams[0])[:9])[None, :, None]
    counted = 0
    for width in range(2, 25):
        for heads in range(1, 7):
            changes = {"width": width, "heads": heads, "inner": 8, "layers": 1}
            if width % heads or width // heads % 2:
                refused(golf, changes, f"width must be a multiple of {2 * heads}$")
                continue
            model = trial.changed(kit.Entry, changes)(Given(shipped.tokenizer), 0).model()
            with torch.no_grad():
                logits = model(ids)
            assert logits.shape == (1, 9, shipped.tokenizer.vocab_size)
            assert logits.isfinite().all()
            counted += 1
    assert counted > 20


def test_layers_that_attend_are_there(golf, shipped):
    trial, kit = golf("trial"), golf("kit.entry")
    for number in range(2**3):
        layers = tuple(layer for layer in range(3) if number >> layer & 1)
        made = trial.changed(kit.Entry, {"layers": 3, "attending": layers, "width": 8})
        model = made(Given(shipped.tokenizer), 0).model()
        found = [place for place, layer in enumerate(model.layers) if layer.self_attn is not None]
        assert tuple(found) == layers
    for layers in ((3,), (0, 3), (-1,), (99, 0), (1.0,), ("0",), (True,), (None,)):
        refused(golf, {"layers": 3, "attending": layers}, "a layer in attending is ")
    refused(golf, {"attending": (1, 1)}, "name each layer once")
    for name, value in (("steps", 2), ("value_embeddings", True), ("query_norm", True)):
        refused(golf, {"attending": (), name: value}, f"^{name} is .* no layer has attention")


def test_what_is_told_of_a_place_builds_on_the_context(golf, shipped, streams):
    trial, kit = golf("trial"), golf("kit.entry")
    ids = golf("task").sequence(shipped.tokenizer, streams[0])
    names = ("context", "edges", "near", "joint")
    for number in range(2**4):
        on = {name: bool(number >> place & 1) for place, name in enumerate(names)}
        if (on["joint"] and not on["edges"]) or ((on["edges"] or on["near"]) and not on["context"]):
            refused(golf, on, "is True, which needs (context|edges)=True$")
            continue
        made = trial.changed(kit.Entry, on)(Given(shipped.tokenizer), 0)
        columns = 1 + 13 * on["context"] + 6 * on["edges"] + 3 * on["near"]
        assert made.inputs(ids).shape == (len(ids), columns + len(kit.JOINT) * on["joint"])


def test_an_alphabet_is_one_in_which_the_context_can_be_followed(golf, streams, shipped):
    """In each of them a decoder knows the same coefficients at the picture's end."""
    from jpeglm.syntax.alphabet import ALPHABETS
    from jpeglm.tokenizer import Tokenizer

    trial, kit, parse = golf("trial"), golf("kit.entry"), golf("kit.parse")
    codec, planes = shipped.tokenizer.codec, []
    for alphabet in ALPHABETS:
        assert trial.changed(kit.Entry, {"alphabet": alphabet}).alphabet == alphabet
        changes = {"alphabet": alphabet, "context": True}
        if alphabet not in kit.READABLE:
            refused(golf, changes, "context=True needs one of jpeg-block-symbols, ")
            continue
        tokenizer = Tokenizer.train(streams, codec, alphabet, 700)
        ids = golf("task").sequence(tokenizer, streams[0])
        planes.append(parse.decode(parse.Layout(tokenizer), ids)[1])
    assert len(planes) == 3 and all(np.array_equal(planes[0], one) for one in planes)
    assert np.count_nonzero(planes[0]) > 100


def test_an_entry_refuses_what_does_not_fit_however_it_is_made(golf, shipped):
    for changes in ({"heads": 3}, {"joint": True}, {"attending": (4,)}, {"warmup": 0}):
        with pytest.raises(InputError):
            entry(golf, Given(shipped.tokenizer), **changes)


def test_words_become_values_as_python_writes_them(golf):
    parsed = golf("trial").parsed
    values = every(golf) | {
        "a": -3,
        "b": 1e-4,
        "c": (2,),
        "d": "a=b",
        "e": "(((",
        "f": "1e",
        "g": "",
    }
    words = [f"{name}={value}" for name, value in values.items()]
    assert parsed(words) == values
    assert {name: type(value) for name, value in parsed(words).items()} == {
        name: type(value) for name, value in values.items()
    }
    assert parsed([]) == {}
    for value in ("(" * 9999, "-" * 9999 + "1", "1+" * 9999 + "1", "{[]: 1}", "{**x}"):
        assert parsed([f"odd={value}"]) == {"odd": value}
    for word in ("width", "--width", ""):
        with pytest.raises(InputError, match=f"--set {word} is not FIELD=VALUE; give for instance"):
            parsed(["width=3", word])


def test_runs_of_a_trial_lie_in_a_folder_of_its_name(golf):
    name_of = golf("trial").name_of
    assert name_of("00-llama", {}) == "00-llama"
    assert name_of("00-llama", {"width": 8, "table_rate": 4}) == "00-llama,width=8,table_rate=4"
    assert name_of("r", {"x": "é" * 125}) == "r,x=" + "é" * 125  # 254 bytes
    for value in ("é" * 126, "up/there"):
        with pytest.raises(InputError, match="no name of a folder; make a folder of"):
            name_of("r", {"x": value})
