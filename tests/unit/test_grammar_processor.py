"""Stock `generate` of transformers under the grammar: batches, prompts, beams, budgets; djpeg
judges."""

import shutil
import subprocess

import numpy as np
import pytest

from jpeglm.codecs import JpegCodec
from jpeglm.config import InputError, JpegConfig, Sampling
from jpeglm.generation.matcher import Constraint, Matcher, make_prompt
from jpeglm.generation.sampling import choose, make_draw
from jpeglm.syntax.alphabet import ALPHABETS
from jpeglm.tokenizer import Tokenizer
from tests.unit.conftest import hugging_face, random_llama

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from jpeglm.integrations.transformers import GrammarProcessor, narrowed  # noqa: E402

CODEC = JpegCodec(JpegConfig(48, 32, restart_interval=1))
LENGTH = 260


@pytest.fixture(scope="module")
def drawing(pictures):
    """(tokenizer, transformers' Llama of random weights, streams) of small pictures."""
    streams = [CODEC.encode(picture) for picture in pictures]
    tokenizer = Tokenizer.train(streams, CODEC, "jpeg-symbols", 300, n_classes=2)
    return tokenizer, hugging_face(*random_llama(tokenizer.vocab_size, LENGTH)), streams


def files_of(tokenizer, rows):
    """Whole files of rows of ids, whatever padding stands around."""
    for row in np.asarray(rows):
        yield tokenizer.codec.wrap(tokenizer.decode_stream(row[row != tokenizer.eos]))


def judged(folder, files):
    """How many djpeg takes without a word, and our own check does."""
    taken = 0
    for number, file in enumerate(files):
        assert CODEC.check(file).valid
        path = folder / f"{number}.jpg"
        path.write_bytes(file)
        if shutil.which("djpeg"):
            said = subprocess.run(
                ["djpeg", "-outfile", "/dev/null", path], capture_output=True, check=False
            )
            assert said.returncode == 0 and not said.stderr, said.stderr
        taken += 1
    return taken


def ask(model, tokenizer, ids, **options):
    ids = torch.as_tensor(np.asarray(ids), dtype=torch.long)
    mask = (ids != tokenizer.eos).long()
    return model.generate(
        ids, attention_mask=mask, pad_token_id=tokenizer.eos, eos_token_id=tokenizer.eos, **options
    )


SAMPLED = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}


def test_hundreds_of_samples_are_valid(drawing, tmp_path):
    tokenizer, model, _ = drawing
    processor = GrammarProcessor(tokenizer, LENGTH)
    torch.manual_seed(0)
    found = []
    for _ in range(4):  # one processor, several calls
        rows = ask(
            model, tokenizer, np.full((50, 1), tokenizer.bos), max_length=LENGTH,
            logits_processor=[processor], **{**SAMPLED, "temperature": 4.0},
        )  # fmt: skip
        assert rows.shape[1] <= LENGTH and (rows[:, 1:] == tokenizer.eos).any(1).all()
        found += list(files_of(tokenizer, rows))
    assert judged(tmp_path, found) == 200 and len(set(found)) == 200


def test_without_it_hardly_any_is(drawing):
    """What the test above would see of a processor that does nothing."""
    tokenizer, model, _ = drawing
    torch.manual_seed(0)
    begin = np.full((20, 1), tokenizer.bos)
    rows = ask(model, tokenizer, begin, max_length=LENGTH, **{**SAMPLED, "temperature": 4.0})
    for row in rows.tolist():
        matcher = Matcher(tokenizer)
        assert not all(map(matcher.accept, row[1:]))


@pytest.mark.parametrize("tight", [False, True])
def test_beams_are_valid(drawing, tmp_path, tight):
    """Beams change places; a budget that the shortest stream alone keeps makes all but it -inf."""
    tokenizer, model, _ = drawing
    least = Matcher(tokenizer).tokens_to_end + 1
    length = least + 2 if tight else LENGTH
    processor = GrammarProcessor(tokenizer, length)
    rows = ask(
        model, tokenizer, [[tokenizer.bos], [tokenizer.eos + 1], [tokenizer.eos + 2]],
        max_length=length, num_beams=5, num_return_sequences=3, early_stopping=True,
        logits_processor=[processor],
    )  # fmt: skip
    assert judged(tmp_path, files_of(tokenizer, rows)) == 9


def test_beams_with_sampling_are_valid(drawing, tmp_path):
    tokenizer, model, _ = drawing
    torch.manual_seed(1)
    rows = ask(
        model, tokenizer, np.full((6, 1), tokenizer.bos), max_length=LENGTH, num_beams=4,
        num_return_sequences=4, logits_processor=[GrammarProcessor(tokenizer, LENGTH)], **SAMPLED,
    )  # fmt: skip
    assert judged(tmp_path, files_of(tokenizer, rows)) == 24


def test_prompts_are_kept_to_the_bit(drawing, tmp_path):
    """Of unequal lengths, so padded on the left, three sequences of each; what a prompt forces
    behind its certain tokens comes too."""
    tokenizer, model, streams = drawing
    prompts = []
    for stream, units in zip(streams[:4], (1, 2, 4, 5), strict=True):
        prefix = tokenizer.alphabet.prefix(stream, units)
        prompts.append(make_prompt(tokenizer, prefix, tokenizer.bos))
    longest = max(len(prompt.ids) for prompt in prompts)
    ids = np.full((4, longest), tokenizer.eos)
    for row, prompt in zip(ids, prompts, strict=True):
        row[longest - len(prompt.ids) :] = prompt.ids
    assert (ids[:, 0] == tokenizer.eos).any()
    length = longest + 230
    torch.manual_seed(2)
    rows = ask(
        model, tokenizer, ids, max_length=length, num_return_sequences=3, **SAMPLED,
        logits_processor=[GrammarProcessor(tokenizer, length, prompts)],
    )  # fmt: skip
    assert judged(tmp_path, files_of(tokenizer, rows)) == 12
    for number, row in enumerate(rows.numpy()):
        units = (1, 2, 4, 5)[number // 3]
        drawn = tokenizer.decode_stream(row[row != tokenizer.eos])
        kept = tokenizer.alphabet.prefix(streams[number // 3], units).symbols
        assert tokenizer.alphabet.split(drawn)[: len(kept)].tolist() == kept.tolist()


@pytest.mark.parametrize("alphabet", ["bytes", "paper-bytes", "jpeg-placed-symbols"])
def test_prompts_cut_inside_a_byte(drawing, pictures, alphabet, tmp_path):
    """The leading bits of the byte at the cut are forced, of alphabets that have bytes."""
    _, _, streams = drawing
    tokenizer = Tokenizer.train(streams, CODEC, alphabet, 420)
    model = hugging_face(*random_llama(tokenizer.vocab_size, 900))
    prompt = make_prompt(tokenizer, tokenizer.alphabet.prefix(streams[0], 3), tokenizer.bos)
    torch.manual_seed(3)
    rows = ask(
        model, tokenizer, prompt.ids[None], max_length=900, num_return_sequences=4, **SAMPLED,
        logits_processor=[GrammarProcessor(tokenizer, 900, [prompt])],
    )  # fmt: skip
    files = list(files_of(tokenizer, rows))
    assert judged(tmp_path, files) == 4
    plain = CODEC.alphabet("jpeg-symbols")
    kept = plain.prefix(streams[0], 3).symbols
    for file in files:
        assert plain.split(CODEC.unwrap(file))[: len(kept)].tolist() == kept.tolist()


@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_masks_are_the_matcher_s(drawing, alphabet):
    """Step by step, of every alphabet, through a foreign vocabulary that is larger."""
    _, _, streams = drawing
    tokenizer = Tokenizer.train(streams, CODEC, alphabet, 420)
    processor = GrammarProcessor(tokenizer, 2000)
    ids = [tokenizer.bos, *tokenizer.encode_stream(streams[0]).tolist()]
    matcher = Matcher(tokenizer, max_tokens=2000)
    scores = torch.randn(1, tokenizer.vocab_size + 5)
    for end in range(1, len(ids) + 1):
        found = processor(torch.tensor([ids[:end]]), scores)
        legal = matcher.allowed()
        assert (torch.isfinite(found[0, : len(legal)]).numpy() == legal).all()
        assert not torch.isfinite(found[0, len(legal) :]).any()
        assert torch.equal(found[0, : len(legal)][legal], scores[0, : len(legal)][legal])
        if end < len(ids):
            assert matcher.accept(ids[end])


def test_bad_prompts_are_told(drawing):
    tokenizer, model, _ = drawing
    begin = [[tokenizer.bos]]
    with pytest.raises(InputError, match="keep less"):
        ask(
            model, tokenizer, begin, max_length=9, logits_processor=[GrammarProcessor(tokenizer, 9)]
        )
    processor = GrammarProcessor(tokenizer, LENGTH)
    with pytest.raises(InputError, match="neither BOS"):
        ask(model, tokenizer, [[3, 4]], max_length=LENGTH, logits_processor=[processor])
    with pytest.raises(InputError, match="does not begin a stream"):
        wrong = np.flatnonzero(~Matcher(tokenizer).allowed())[0]
        ids = [[tokenizer.bos, int(wrong)]]
        ask(model, tokenizer, ids, max_length=LENGTH, logits_processor=[processor])
    prompts = [make_prompt(tokenizer, tokenizer.alphabet.prefix(drawing[2][0], 1), tokenizer.bos)]
    with pytest.raises(InputError, match="rows for"):
        given = GrammarProcessor(tokenizer, LENGTH, prompts * 2)
        ask(model, tokenizer, begin * 3, max_length=LENGTH, logits_processor=[given])
    with pytest.raises(InputError, match="do not begin with"):
        given = GrammarProcessor(tokenizer, LENGTH, prompts)
        ask(model, tokenizer, begin, max_length=LENGTH, logits_processor=[given])


def test_what_it_cannot_do_is_told(drawing):
    """Another model's tokenizer, and settings that it would pass over."""
    tokenizer, *_ = drawing
    for changes, said in (
        ({"guidance": 2.0}, "guidance is 2"),
        ({"grammar": False}, "without the"),
    ):
        with pytest.raises(InputError, match=said):
            GrammarProcessor(tokenizer, LENGTH, sampling=Sampling(**changes))
    for length in (0, 2.5, "9"):
        with pytest.raises(InputError, match="max_length"):
            GrammarProcessor(tokenizer, length)
    begin, size = torch.tensor([[tokenizer.bos]]), tokenizer.vocab_size
    processor = GrammarProcessor(tokenizer, LENGTH)
    assert torch.isinf(processor(begin, torch.zeros(1, size + 6))[0, size:]).all()
    with pytest.raises(InputError, match=f"{size - 1} tokens, the tokenizer {size}"):
        processor(begin, torch.zeros(1, size - 1))


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(temperature=0.0),
        Sampling(temperature=0.7, top_k=5),
        Sampling(top_p=0.6),
        Sampling(temperature=1.3, top_k=12, top_p=0.8),
        Sampling(min_p=0.2),
        Sampling(top_k=1),
        Sampling(top_p=0.05, min_p=0.4),
    ],
    ids=str,
)
def test_narrowed_is_our_own_choice(sampling):
    """The same tokens in the same proportion as `sampling.choose`, whose draw is swept."""
    rng = np.random.default_rng(4)
    for share in (0.05, 0.3, 1.0):
        logits = rng.normal(0, 2, 60).astype(np.float32)
        legal = rng.random(60) < share
        legal[rng.integers(60)] = True
        scores = torch.from_numpy(logits)[None]
        found = narrowed(scores, torch.from_numpy(legal)[None], sampling)[0]
        mine = torch.softmax(found, -1).numpy()
        draw, weight, order = make_draw(sampling), np.zeros(60, np.float32), np.zeros(60, np.int64)
        sweep = (np.arange(20_000) + 0.5) / 20_000
        ours = np.zeros(60)
        for uniform in sweep:
            ours[choose(logits, legal, draw, uniform, weight, order)[0]] += 1 / len(sweep)
        np.testing.assert_allclose(mine, ours, atol=3e-4)


def test_the_orders_are_one_where_nothing_is_illegal_and_two_elsewhere():
    """The grammar before top-k and top-p, as generate has it, and behind them, as jpeglm."""
    rng = np.random.default_rng(6)
    sampling = Sampling(top_k=10, top_p=0.9)
    for illegal, least, most in ((0, 0.0, 1e-6), (20, 0.05, 1.0)):
        logits = torch.from_numpy(rng.normal(0, 1, (200, 60)).astype(np.float32))
        legal = torch.ones(200, 60, dtype=bool)
        legal[:, :illegal] = False
        behind = torch.softmax(narrowed(logits, legal, sampling), -1)
        before = logits.masked_fill(~legal, -torch.inf)
        before = torch.softmax(narrowed(before, torch.ones_like(legal), sampling), -1)
        apart = float((before - behind).abs().sum(-1).mean() / 2)
        assert least <= apart <= most
        assert not behind[~legal].any() and not before[~legal].any()


def test_sampling_as_jpeglm_does(drawing, tmp_path):
    tokenizer, model, _ = drawing
    sampling = Sampling(temperature=0.9, top_k=40, top_p=0.9)
    processor = GrammarProcessor(tokenizer, LENGTH, sampling=sampling)
    torch.manual_seed(5)
    rows = ask(
        model, tokenizer, np.full((40, 1), tokenizer.bos), max_length=LENGTH, **SAMPLED,
        logits_processor=[processor],
    )  # fmt: skip
    assert judged(tmp_path, files_of(tokenizer, rows)) == 40


def test_it_costs_little(drawing):
    """Masks are found again by the grammar's state: not a fork for a row that goes on alone."""
    tokenizer, _, _ = drawing
    processor = GrammarProcessor(tokenizer, LENGTH)
    ids = torch.full((8, 1), tokenizer.bos)
    processor(ids, torch.zeros(8, tokenizer.vocab_size))
    assert len(processor._walks) == 1
    assert isinstance(processor._constraint, Constraint)


def test_rows_that_begin_no_stream_are_refused_and_whole_ones_stay_whole(drawing):
    """Ids between a picture's that are none of one were passed over in silence."""
    tokenizer, _, streams = drawing
    bos, eos = tokenizer.bos, tokenizer.eos
    begun = [bos, *tokenizer.encode_stream(streams[0]).tolist()]
    scores = torch.zeros((1, tokenizer.vocab_size))

    def legal(ids):
        given = torch.tensor([ids], dtype=torch.long)
        return np.flatnonzero(GrammarProcessor(tokenizer, LENGTH)(given, scores)[0] == 0).tolist()

    for ids, word in (
        ([bos, bos], f"has the id {bos} behind its head"),
        ([bos, *begun[1:4], tokenizer.class_token(1)], "behind its head"),
        ([bos, eos], "before its picture is whole"),
        ([*begun[:-1], eos, eos], "before its picture is whole"),
        ([bos, *begun[1:4], eos, *begun[4:]], f"has the id {eos} behind its head"),
        ([], "the rows are empty"),
    ):
        with pytest.raises(InputError, match=word):
            legal(ids)
    for ids in (begun, [*begun, eos], [eos, eos, *begun, eos, eos]):
        assert legal(ids) == [eos]
    assert len(legal(begun[:4])) > 1


def test_misuse_is_told(drawing):
    tokenizer, _, streams = drawing
    prompt = make_prompt(tokenizer, tokenizer.alphabet.prefix(streams[0], 1), tokenizer.bos)
    ids = torch.tensor(prompt.ids[None]).long()
    scores = torch.zeros((1, tokenizer.vocab_size))
    for options, word in (
        ({"prompts": []}, "1 rows for 0 prompts"),
        ({"prompts": prompt}, "prompts is a single prompt"),
        ({"pad": -1}, "pad is -1"),
        ({"pad": "eos"}, "pad is 'eos'"),
        ({"pad": tokenizer.vocab_size}, f"pad is {tokenizer.vocab_size}, the model has"),
    ):
        with pytest.raises(InputError, match=word):
            GrammarProcessor(tokenizer, LENGTH, **options)(ids, scores)
