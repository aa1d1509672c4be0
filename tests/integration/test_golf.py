"""The race for bits: its ruler against ours, its model against transformers', what a decoder knows
against libjpeg, and that it refuses what looks ahead."""

import io
import sys
from functools import partial

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def data(tmp_path_factory, picture_files, jpeglm):
    """A prepared folder of 4 photographs, in crops of 64 pixels, one of them held out."""
    home = tmp_path_factory.mktemp("golf")
    for number, file in enumerate(picture_files[:4]):
        split = home / "photos" / ("validation" if number == 3 else "train")
        split.mkdir(parents=True, exist_ok=True)
        (split / file.name).write_bytes(file.read_bytes())
    folder = home / "data" / "golf64"
    ended = jpeglm(
        "prepare", home / "photos", folder, "--split", "folder", "--crops", 24,
        "--restart-interval", 1,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    return folder


def entry(golf, task, **changes):
    kind = type("Entry", (golf("kit.entry").Entry,), changes)
    return kind(task, 0)


class Given:
    """A task whose tokenizer is a checkpoint's."""

    def __init__(self, tokenizer, streams=()):
        self.codec, self.held_out, self.given = tokenizer.codec, list(streams), tokenizer

    def tokenizer(self, alphabet, vocabulary):
        return self.given


def of_checkpoint(golf, checkpoint, streams):
    """(entry, model) with the shape and the weights of a checkpoint."""
    from jpeglm.checkpoint import from_bfloat16

    config = checkpoint.config
    made = entry(
        golf, Given(checkpoint.tokenizer, streams), width=config["hidden_size"],
        layers=config["num_hidden_layers"], heads=config["num_attention_heads"],
        inner=config["intermediate_size"],
    )  # fmt: skip
    model = made.model()
    weights = {
        name.removeprefix("model."): torch.from_numpy(from_bfloat16(value))
        for name, value in checkpoint.weights.items()
        if name != "lm_head.weight"
    }
    model.load_state_dict(weights)
    return made, model


def test_its_model_is_transformers_llama(golf, shipped, streams):
    from jpeglm.models.llama import build

    made, model = of_checkpoint(golf, shipped, streams)
    theirs = build(shipped.config, 0)
    theirs.model.load_state_dict(model.state_dict())
    ids = golf("task").sequence(shipped.tokenizer, streams[0])
    with torch.no_grad():
        ours = model(torch.from_numpy(made.inputs(ids))[None])
        want = theirs(input_ids=torch.from_numpy(ids)[None]).logits
        assert want.std() > 1
        assert torch.allclose(ours, want, atol=2e-4)
        made.steps = 5
        striped = made.model()
        striped.load_state_dict(model.state_dict())
        assert torch.allclose(striped(torch.from_numpy(made.inputs(ids))[None]), want, atol=2e-4)


def test_its_ruler_is_ours(golf, shipped, streams):
    """Bits of the shipped model by the race and by `Model.score_streams`."""
    from jpeglm.generation.loading import load

    made, model = of_checkpoint(golf, shipped, streams)
    bits = golf("task").score(made, model, streams)
    scores = load(precision="float32").score_streams(streams)
    np.testing.assert_allclose(bits, [score.bits.sum() for score in scores], rtol=1e-4)


def test_flops_are_palms(golf, shipped):
    from jpeglm.models.llama import flops_per_token, preset

    made = entry(golf, Given(shipped.tokenizer))
    config = preset("1m", shipped.tokenizer.vocab_size, 512)
    counted = golf("task").flops(made.model(), 320, 1)
    assert counted == 320 * flops_per_token(config, 320)
    # Stripes leave out what lies ahead, and nothing else is counted differently.
    made.steps = 4
    attention = 12 * made.layers * made.width * 320 * 320
    assert counted - golf("task").flops(made.model(), 320, 1) == attention * 3 // 8


def test_what_a_decoder_knows_is_what_libjpeg_decodes(golf, shipped, streams):
    """Coefficients from the tokens, against a DCT of the luma that libjpeg decodes; and the columns
    of neighbours, where blocks begin, against those coefficients."""
    fft = pytest.importorskip("scipy.fft")
    parse = golf("kit.parse")
    codec, tokenizer = shipped.tokenizer.codec, shipped.tokenizer
    layout, names = parse.Layout(tokenizer), list(parse.COLUMNS)
    zigzag = sorted(
        range(64), key=lambda i: (i // 8 + i % 8, i % 8 if (i // 8 + i % 8) % 2 == 0 else i // 8)
    )
    for stream in streams:
        ids = golf("task").sequence(tokenizer, stream)
        known, planes, _ = parse.decode(layout, ids)
        image = Image.open(io.BytesIO(codec.wrap(stream)))
        image.draft("YCbCr", None)
        steps = np.array(image.quantization[0], float)[zigzag]
        luma = np.asarray(image.convert("YCbCr"), float)[..., 0] - 128
        for y in range(8):
            for x in range(8):
                block = luma[8 * y : 8 * y + 8, 8 * x : 8 * x + 8]
                if block.max() > 126 or block.min() < -127:
                    continue  # cut off on the way
                there = fft.dctn(block, norm="ortho").ravel()[zigzag] / steps
                np.testing.assert_allclose(there, planes[0, y, x], atol=0.6)
        begins = known[known[:, names.index("coefficient")] == 0]
        assert 48 < len(begins) <= 96  # some tokens reach into the next block
        for row in begins:
            at = dict(zip(names, row.tolist()))
            y, x = at["down"], at["across"]
            plane = planes[max(0, at["block"] - 3)]
            # A marker stands before each MCU: its first block codes its DC as it is.
            before = {1: (y, x - 1), 2: (y - 1, x + 1), 3: (y, x - 1)}.get(at["block"])
            running = int(plane[before][0]) if before else 0
            left, above = (plane[y, x - 1] if x else None), (plane[y - 1, x] if y else None)
            near = [int(block[0]) for block in (left, above) if block is not None]
            guess = sum(near) // len(near) if near else 0
            level = min(max(guess - running, -parse.LEVELS), parse.LEVELS) + parse.LEVELS
            assert at["level"] == level
            for block, name in ((left, "left_rest"), (above, "above_rest")):
                count = np.count_nonzero(block[1:]) if block is not None else parse.FEW + 1
                assert at[name] == min(count, parse.FEW + (block is None))


def test_near_places_wrote_the_same_coefficient(golf, shipped, streams):
    """The first id behind which the block on the left, above, or of the other chroma has the
    coefficient that comes next, by where the ids in between stand."""
    parse = golf("kit.parse")
    layout, names = parse.Layout(shipped.tokenizer), list(parse.COLUMNS)
    across = layout.across

    def scanned(component, y, x, k):
        """Coefficients in front of one, in the order of the scan."""
        if component == 0:
            block = 6 * (y // 2 * across + x // 2) + 2 * (y % 2) + x % 2
        else:
            block = 6 * (y * across + x) + 3 + component
        return 64 * block + k

    met = [0, 0, 0]
    for stream in streams[:2]:
        known, _, near = parse.decode(layout, golf("task").sequence(shipped.tokenizer, stream))
        at = [dict(zip(names, row.tolist())) for row in known]
        place = [
            (max(0, one["block"] - 3), one["down"], one["across"],
             one["coefficient"] - (one["pending"] > 0))
            for one in at
        ]  # fmt: skip
        done = np.array([
            384 * layout.spec.mcus if one["block"] == 15 else scanned(*where)
            for one, where in zip(at, place)
        ])  # fmt: skip
        for i, (component, y, x, k) in enumerate(place):
            beside = [
                (component, y, x - 1) if x else None,
                (component, y - 1, x) if y else None,
                (1, y, x) if component == 2 else None,
            ]
            for side, block in enumerate(beside):
                if at[i]["block"] == 15 or block is None:
                    assert near[i, side] == 0
                    continue
                met[side] += 1
                assert near[i, side] == np.argmax(done > scanned(*block, k)) <= i
    assert min(met) > 20


def test_edges_foretell_what_a_smooth_picture_goes_on_with(golf, shipped, streams):
    """Hints against inverse DCTs of whole blocks."""
    fft = pytest.importorskip("scipy.fft")
    parse, edges = golf("kit.parse"), golf("kit.edges")
    layout, steps = parse.Layout(shipped.tokenizer), edges.steps_of(shipped.tokenizer.codec)

    def pixels(levels, component):
        block = np.zeros(64)
        block[edges.ZIGZAG] = levels * steps[component]
        return fft.idctn(block.reshape(8, 8), norm="ortho")

    def left_over(pixels, component, so_far, beside, at, above):
        """Of the frequency of coefficient `at`, what the row above (or else the column on the left)
        has and the block has not so far, in units of what the coefficient adds."""
        now, unit = so_far, pixels((np.arange(64) == at).astype(float), component)
        if not above:
            now, unit = now.T, unit.T
        line = fft.dct(beside[above][-1] - now[0], norm="ortho")
        gain = fft.dct(unit[0], norm="ortho")
        frequency = int(np.argmax(abs(gain)))
        return line[frequency] / gain[frequency]

    compared = 0
    for stream in streams[:4]:
        known, planes, _ = parse.decode(layout, golf("task").sequence(shipped.tokenizer, stream))
        told = edges.foretold(layout, steps, known, planes)
        for row, found in zip(known[:: len(known) // 40], told[:: len(known) // 40]):
            block, k, pending, x, y = row[:5]
            here = k - 1 if pending else k
            if block > 5 or not 0 < here < 61:
                continue
            component = max(0, block - 3)
            plane = planes[component]
            so_far = pixels(np.where(np.arange(64) < here, plane[y, x], 0), component)
            beside = {
                True: pixels(plane[y - 1, x], component) if y else None,
                False: pixels(plane[y, x - 1], component).T if x else None,
            }
            expected = partial(left_over, pixels, component, so_far, beside)
            sides = [side for side, is_there in ((True, y > 0), (False, x > 0)) if is_there]
            for side in sides:
                want = min(max(2 * expected(here, side), -edges.HERE), edges.HERE) + edges.HERE
                assert abs(found[1 if side else 2] - want) < 0.51
            for j in range(3 if sides else 0):
                want = 2 * np.mean([expected(here + 1 + j, side) for side in sides])
                want = min(max(want, -edges.SOON), edges.SOON) + edges.SOON
                assert abs(found[3 + j] - want) < 0.51
            compared += len(sides)
    assert compared > 50


def test_only_what_can_come_gets_probability(golf, shipped, streams):
    """The masks of an entry are those of the matcher less what the merges would not write, and
    never bar what comes."""
    from jpeglm.generation.matcher import Matcher

    made = entry(golf, Given(shipped.tokenizer), legal=True)
    task, spelling = golf("task"), shipped.tokenizer.spelling
    barred = set()
    for stream in streams[:3]:
        ids = task.sequence(shipped.tokenizer, stream)
        inputs = torch.from_numpy(made.inputs(ids[:-1]))
        allowed = made.lawful.allowed(inputs[:, 0], inputs[:, 1]).numpy()
        assert allowed[np.arange(len(ids) - 1), ids[1:]].all()
        matcher = Matcher(made.lawful.constraint)
        for place, token in enumerate(ids[1:].tolist()):
            assert not (allowed[place] & ~matcher.allowed()).any()
            unwritten = np.flatnonzero(matcher.allowed() & ~allowed[place]).tolist()
            barred |= {(int(ids[place]), other) for other in unwritten}
            assert matcher.accept(token)
    assert allowed.mean() < 0.9
    assert len(barred) > 100
    for pair in sorted(barred)[::50]:  # what the merges would have joined otherwise
        symbols = np.array([*spelling[pair[0]], *spelling[pair[1]]], np.int32)
        assert shipped.tokenizer.encode_symbols(symbols).tolist() != list(pair)


def test_what_looks_ahead_or_loses_something_is_refused(golf, shipped, streams):
    from jpeglm.config import InputError

    task = golf("task")
    made = entry(golf, Given(shipped.tokenizer), context=True, edges=True, legal=True, steps=3)
    model = made.model()
    task.check(made, model, streams[:2])

    # Everything that records and trials change, at once.
    rich = entry(
        golf, Given(shipped.tokenizer), context=True, edges=True, legal=True, steps=3, skip=True,
        value_embeddings=True, query_norm=True, activation="relu2", shift=2, near=True, joint=True,
        untied=True, attending=(1, 2),
    )  # fmt: skip
    richer = rich.model()
    for name, gain in richer.named_parameters():  # which begin with zeros
        if ".before_" in name:
            torch.nn.init.normal_(gain)
    task.check(rich, richer, streams[:1])
    assert [layer.self_attn is not None for layer in richer.layers] == [False, True, True, False]

    class Peeks(torch.nn.Module):
        def forward(self, inputs):
            return model(inputs.roll(-1, 1)).nan_to_num(neginf=-1e4)

    with pytest.raises(InputError, match="looks ahead"):
        task.check(made, Peeks(), streams[:2])
    whole = made.inputs

    made.inputs = lambda ids: whole(ids) * 0 + len(ids) % 7
    with pytest.raises(InputError, match="looks ahead"):
        task.check(made, model, streams[:2])


def test_around_is_a_causal_convolution_and_what_near_places_hold(golf, shipped):
    made = entry(golf, Given(shipped.tokenizer), context=True, shift=3, near=True)
    around = golf("kit.model").Around(made)
    for gain in around.parameters():
        torch.nn.init.normal_(gain)
    x, near = torch.randn(2, 9, made.width), torch.randint(9, (2, 9, 3))
    # Of what is three, two, one before, and of the place itself.
    kernel = torch.stack([*list(around.shifts)[::-1], torch.ones(made.width)], 1)[:, None]
    padded = torch.nn.functional.pad(x.mT, (3, 0))
    want = torch.nn.functional.conv1d(padded, kernel, groups=made.width).mT
    for row, side in np.ndindex(2, 3):
        want[row] += around.nears[side] * x[row, near[row, :, side]]
    torch.testing.assert_close(around(x, {"near": near}), want)


def test_each_pair_has_a_row_of_its_own(golf, shipped, streams):
    kit, task = golf("kit.entry"), golf("task")
    made = entry(golf, Given(shipped.tokenizer), context=True, edges=True, joint=True)
    rows = made.inputs(task.sequence(shipped.tokenizer, streams[0]))[:, 1:]
    assert rows.shape[1] == made.known == 19 + len(kit.JOINT)
    assert ((made.starts[:-1] <= rows) & (rows < made.starts[1:])).all()
    names = [*kit.COLUMNS, *kit.EDGES]
    for number, pair in enumerate(kit.JOINT, 19):
        first, second = (rows[:, names.index(name)] for name in pair)
        told = set(zip(first.tolist(), second.tolist(), rows[:, number].tolist()))
        assert len({row for _, _, row in told}) == len({told[:2] for told in told}) == len(told)


def test_each_parameter_is_trained_by_one_optimizer(golf, shipped):
    made = entry(golf, Given(shipped.tokenizer), untied=True, table_rate=4.0, table_decay=0.0)
    model = made.model()
    groups = [group for one in made.optimizers(model) for group in one.param_groups]
    trained = [id(one) for group in groups for one in group["params"]]
    assert sorted(trained) == sorted(map(id, model.parameters()))
    (tables,) = (g for g in groups if any(one is model.embed_tokens.weight for one in g["params"]))
    (head,) = (g for g in groups if any(one is model.head.weight for one in g["params"]))
    assert (tables["lr"], tables["weight_decay"]) == (4 * made.peak, 0)
    assert (head["lr"], head["weight_decay"]) == (made.peak, made.decay)


def test_a_run_ends_with_its_budget_and_goes_on_where_it_was_stopped(golf, data, tmp_path):
    from jpeglm.files import read_json

    race, task = golf("race"), golf("task").Task(data)
    kind = type("Entry", (golf("kit.entry").Entry,), {
        "vocabulary": 300, "width": 64, "heads": 1, "layers": 1, "inner": 64, "warmup": 2,
        "tokens_a_step": 2048, "context": True, "edges": True, "legal": True,
    })  # fmt: skip

    def run(name):
        out = tmp_path / name
        out.mkdir(exist_ok=True)
        return race.Run(kind, task, 0, 3e10, False, out, eager=True)

    whole = run("whole").train()
    assert 3e10 <= whole["flops"] < 4e10 and whole["steps"] > 6
    assert len(whole["curve"]) == race.POINTS
    assert whole["bits"] == whole["curve"][-1][1] < 0.95 * whole["curve"][0][1]
    assert read_json(tmp_path / "whole" / "result.json")["bits"] == whole["bits"]

    half = run("half")
    plans = half.rows.plans(kind.tokens_a_step, 0)
    for _ in range(3):
        half.take(*half.rows.batch(next(plans)))
    half.save()
    rest = run("half").train()
    assert rest["steps"] == whole["steps"] and rest["tokens"] == whole["tokens"]
    assert rest["bits"] == pytest.approx(whole["bits"], abs=0.2)
    assert not (tmp_path / "half" / "state.pt").exists()


def test_a_budget_may_be_one_of_the_clock(golf, data, tmp_path):
    kind = type("Entry", (golf("kit.entry").Entry,), {
        "vocabulary": 300, "width": 64, "heads": 1, "layers": 1, "inner": 64,
    })  # fmt: skip
    run = golf("race").Run(kind, golf("task").Task(data), 0, 20.0, True, tmp_path, eager=True)
    ended = run.train()
    assert 20 <= ended["seconds"] < 120 and ended["steps"] > 0
    assert [spent for spent, _ in ended["curve"]] == sorted(spent for spent, _ in ended["curve"])


def test_the_table_tells_whether_a_record_is_better(golf, monkeypatch, tmp_path):
    from scipy.stats import ttest_ind

    from jpeglm.files import write_json

    race = golf("race")
    monkeypatch.setattr(race, "RECORDS", tmp_path)
    given = {"00-llama": [2000.0, 2010.0, 1990.0], "01-better": [1900.0, 1910.0, 1895.0],
             "02-trial": []}  # fmt: skip
    for name, bits in given.items():
        rows = [
            {"seed": seed, "bits": one, "parameters": 984192, "tokens": 10_000_000}
            for seed, one in enumerate(bits)
        ]
        (tmp_path / name).mkdir()
        budgets = {"1e14": rows}
        if name == "01-better":
            machine = {"processor": "Own", "vectors": "AVX2"}
            budgets["15min"] = [{"bits": bits, **machine} for bits in (2100.0, 2110.0)]
        write_json(tmp_path / name / "result.json", {"task": "", "budgets": budgets})
    _, _, first, second = race.table().splitlines()
    assert "00-llama" in first
    assert first.endswith("| 2000 (1990 to 2010, 3) | – | – | 0.98 M | 10.0 M | – |")
    assert second.endswith("| 10.0 M | 2105 (Own, AVX2) |")
    p = ttest_ind(given["01-better"], given["00-llama"], equal_var=False).pvalue / 2
    assert f"| -4.9 % | **{p:.1g}** |" in second and p < race.LEVEL


def test_what_cannot_be_run_is_refused_before_it_is_trained(golf, data, monkeypatch, tmp_path):
    from jpeglm.config import InputError
    from jpeglm.files import write_json

    race = golf("race")
    monkeypatch.setattr(race, "Run", None)  # nothing is trained
    monkeypatch.setattr(race, "RECORDS", tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "entry.py").write_text("from kit.entry import Entry\n")
    write_json(tmp_path / "other" / "result.json", {"task": "of others", "budgets": {}})
    work = data.parents[1]
    with pytest.raises(InputError, match="of other pictures"):
        race.run("other", {}, [0], 1e14, False, work)
    with pytest.raises(InputError, match="has no setting wide; it knows activation, alphabet,"):
        race.run("other", {"wide": 1}, [0], 1e14, False, work)
    kind = golf("kit.entry").Entry
    every = {name: getattr(kind, name) for name in golf("trial").fields_of(kind)}
    with pytest.raises(InputError, match="no name of a folder"):
        race.run("other", every, [0], 1e14, False, work)
    with pytest.raises(InputError, match=r"no .*nobodys.*; the records are other$"):
        race.run("nobodys", {}, [0], 1e14, False, work)
    with pytest.raises(InputError, match=r"there is no .*golf64; run: python recipes/golf/data"):
        race.run("other", {}, [0], 1e14, False, tmp_path)
    for budget in (0.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="budget"):
            race.run("other", {}, [0], budget, False, work)
    with pytest.raises(InputError, match="seed"):
        race.run("other", {}, [], 1e14, False, work)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["table_rate=4", "attending=2,", "activation=relu2"], None),
        (["untied=3"], "untied is 3; it must be bool"),
        (["width=wide"], "width is 'wide'; it must be int"),
        (["width=-128"], "width is -128; it must be from 2 to 4096"),
        (["heads=3"], "width is 128 and heads is 3; "),
        (["attending=(4,)"], "a layer in attending is 4; it must be from 0 to 3"),
        (["speed=3"], "Entry has no setting speed; it knows activation"),
        (["joint=True"], "joint is True, which needs edges=True"),
    ],
)
def test_the_command_line_tells_what_does_not_fit(golf, data, monkeypatch, tmp_path, words, told):
    import shutil

    race, ran = golf("race"), []

    class Ran:
        def __init__(self, kind, *rest):
            ran.append(kind)

        def train(self):
            pass

    monkeypatch.setattr(race, "Run", Ran)
    shutil.copytree(data, tmp_path / "data" / data.name)
    asked = ["race.py", "run", "00-llama", "--seeds", "1", "--work", str(tmp_path), "--set", *words]
    monkeypatch.setattr(sys, "argv", asked)
    if told is None:
        race.main()
        (kind,) = ran
        assert (kind.table_rate, kind.attending, kind.activation) == (4, (2,), "relu2")
        (made,) = (tmp_path / "runs/golf").iterdir()
        assert made.name == "00-llama,table_rate=4,attending=(2,),activation=relu2"
        return
    with pytest.raises(SystemExit) as ended:
        race.main()
    assert told in ended.value.code and "\n" not in ended.value.code
    assert not ran and not (tmp_path / "runs").exists()


def test_an_artefact_holds_shared_weights_once(golf):
    model = torch.nn.ModuleDict({name: torch.nn.Linear(4, 4, bias=False) for name in "ab"})
    assert list(golf("task").weights(model)) == ["a.weight", "b.weight"]
    model["b"].weight = model["a"].weight
    assert list(golf("task").weights(model)) == ["a.weight"]


def test_an_artefact_too_large_is_refused(golf, data, tmp_path):
    from jpeglm.config import InputError

    kind = type("Entry", (golf("kit.entry").Entry,), {
        "vocabulary": 300, "width": 448, "heads": 7, "layers": 2, "inner": 448, "warmup": 1,
        "tokens_a_step": 1024,
    })  # fmt: skip
    task = golf("task").Task(data)
    run = golf("race").Run(kind, task, 0, 1e9, False, tmp_path, eager=True)
    with pytest.raises(InputError, match="artefact"):
        run.train()
