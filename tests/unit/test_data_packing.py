"""Packing: every sequence once an epoch, little padding, ranks apart, any step again."""

from itertools import islice

import numpy as np
import pytest

from jpeglm.config import InputError
from jpeglm.data.loader import TrainingLoader, validation_batches
from jpeglm.data.packing import IGNORE, Batches
from jpeglm.data.token_set import TokenSet, in_memory

BOS, EOS, CLASS, WORD = 1000, 1001, 1002, 1003


def token_set(lengths: np.ndarray, labelled: bool = False, text: int = 0) -> TokenSet:
    """Sequence i is [BOS or CLASS, i, i, …, EOS] (i modulo 1000), behind `text` ids WORD."""
    lengths = lengths + text
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tokens = np.repeat(np.arange(len(lengths)) % 1000, lengths).astype(np.uint16)
    for place in range(text):
        tokens[offsets[:-1] + place] = WORD
    tokens[offsets[:-1] + text] = CLASS if labelled else BOS
    tokens[offsets[1:] - 1] = EOS
    labels = np.full(len(lengths), 0 if labelled else -1, np.int32)
    texts = np.full(len(lengths), text, np.int32)
    return in_memory(tokens, offsets, labels, np.asarray(lengths, np.int32), texts)


def photo_lengths(count: int, mean: float, seed: int = 0) -> np.ndarray:
    """Log-normal as measured on photos: the 99th percentile is 2.2 times the mean."""
    lengths = np.random.default_rng(seed).lognormal(0, 0.42, count)
    return np.maximum(4, lengths * mean / lengths.mean()).astype(np.int64)


def epoch(loader: TrainingLoader) -> list[dict[str, np.ndarray]]:
    return list(islice(loader, loader.steps_per_epoch))


def names(batch: dict[str, np.ndarray]) -> list[int]:
    return batch["input_ids"][:, 1].tolist()


@pytest.mark.parametrize(
    ("count", "mean", "batch_tokens", "max_length"),
    [(19_000, 204, 8192, 512), (19_000, 204, 32768, 512), (3_000, 4573, 98_304, 12_288)],
)
def test_padding_stays_below_three_per_cent(count, mean, batch_tokens, max_length):
    loader = TrainingLoader(
        token_set(photo_lengths(count, mean)), "pictures", batch_tokens, max_length
    )
    batches = epoch(loader)
    size = sum(batch["labels"].size for batch in batches)
    padding = sum((batch["labels"] < 0).sum() for batch in batches)
    assert padding / size < 0.03
    assert max(batch["labels"].size for batch in batches) <= batch_tokens
    fill = size / len(batches) / batch_tokens
    assert fill > 0.9


def test_pictures_come_whole_and_once():
    lengths = photo_lengths(500, 60)
    loader = TrainingLoader(token_set(lengths), "pictures", 2000, 150)
    seen = []
    for batch in epoch(loader):
        for ids, labels in zip(batch["input_ids"], batch["labels"]):
            length = int((labels >= 0).sum())
            number = int(ids[1])
            assert length == lengths[number] and (labels[:length] == ids[:length]).all()
            assert ids[0] == BOS and ids[length - 1] == EOS
            assert (labels[length:] == -100).all()
            seen.append(number)
    assert sorted(seen) == np.flatnonzero(lengths <= 150).tolist()
    assert loader.n_dropped == (lengths > 150).sum()
    assert batch["input_ids"].dtype == batch["labels"].dtype == np.int64
    assert seen != sorted(seen)


def test_chunks_hold_the_epoch_end_to_end():
    lengths = photo_lengths(300, 50)
    data = token_set(lengths)
    loader = TrainingLoader(data, "chunks", 1024, 128)
    batches = epoch(loader)
    assert {batch["input_ids"].shape for batch in batches[:-1]} == {(8, 128)}
    flat = np.concatenate([batch["input_ids"].ravel() for batch in batches])
    assert lengths.sum() - len(flat) < 128
    order = np.random.default_rng([0, 0]).permutation(300)
    parts = [data.ids(i) for i in order]
    assert (flat == np.concatenate(parts)[: len(flat)]).all()
    assert (batches[0]["labels"] == batches[0]["input_ids"]).all()
    assert loader.n_dropped == 0


def laid(batch: dict[str, np.ndarray], bos: int = BOS) -> list[np.ndarray]:
    """The sequences of a batch of rows, from BOS to EOS."""
    found = []
    for ids, labels in zip(batch["input_ids"], batch["labels"]):
        starts, ends = np.flatnonzero(ids == bos), np.flatnonzero(ids == EOS)
        assert len(starts) == len(ends)
        assert (labels[(ends[-1] + 1 if len(ends) else 0) :] == -100).all()
        found += [ids[a : b + 1] for a, b in zip(starts, ends)]
    return found


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("fim", [0.0, 0.7])
def test_rows_hold_whole_pictures_each_once_in_one_shape(world, fim):
    lengths = photo_lengths(400, 50)
    data, size = token_set(lengths), 150

    def arrange(ids, rng):
        assert (ids == ids[0]).all(), "a picture's own ids alone"
        return np.concatenate([[2000], ids, [2001] * int(rng.integers(1, 40))])

    seen, holed = [], 0
    for rank in range(world):
        loader = TrainingLoader(
            data, "rows", 1100, size, rank=rank, world_size=world, fim=fim, holes=(arrange, 2000)
        )
        batches = epoch(loader)
        assert {batch["input_ids"].shape for batch in batches} == {(-(-7 // world), size)}
        for batch in batches:
            for ids in laid(batch):
                own = ids[1:-1]
                holed += int(own[0] == 2000)
                own = own[own < 2000]
                seen.append(int(own[0]))
                assert (own == own[0]).all() and len(own) == lengths[own[0]] - 2
            learnt = batch["input_ids"] * (batch["labels"] >= 0)
            assert (learnt < 2000).all() and (
                batch["labels"][learnt > 0] == learnt[learnt > 0]
            ).all()
    assert len(set(seen)) == len(seen) == (lengths <= size).sum()
    assert loader.n_dropped == (lengths > size).sum() > 0
    assert 0.45 * len(seen) * (fim > 0) <= holed <= fim * 1.1 * len(seen)


def test_rows_leave_captions_and_classes_like_pictures():
    data = token_set(photo_lengths(200, 40), labelled=True, text=3)
    loader = TrainingLoader(
        data, "rows", 2000, 200, bos=BOS, class_dropout=0.5, caption_dropout=0.3
    )
    classes = texts = pictures = 0
    for batch in epoch(loader):
        ids, labels = batch["input_ids"], batch["labels"]
        pictures += (ids == EOS).sum()
        classes += (ids == CLASS).sum()
        texts += (ids == WORD).sum() / 3
        assert (labels[ids == WORD] == -100).all()
        heads = np.flatnonzero((ids == CLASS) | (ids == BOS))
        behind = ids.ravel()[heads - 1] == WORD
        assert ((labels.ravel()[heads] == -100) == behind).all()
    assert pictures == 200 - loader.n_dropped
    assert 0.3 < classes / pictures < 0.7 and 0.5 < texts / pictures < 0.9


@pytest.mark.parametrize("mode", ["chunks", "pictures", "rows"])
def test_any_step_is_the_same_however_reached(mode):
    data = token_set(photo_lengths(200, 50))
    straight = list(islice(TrainingLoader(data, mode, 1024, 200, seed=3), 40))
    loader = TrainingLoader(data, mode, 1024, 200, seed=3)
    assert loader.steps_per_epoch < 25, "the steps below must cross epochs"
    for step in (0, 7, 39, 20):
        again = TrainingLoader(data, mode, 1024, 200, seed=3)
        again.seek(step)
        assert again.state()["step"] == step
        assert (next(iter(again))["input_ids"] == straight[step]["input_ids"]).all()
    stream = iter(loader)
    for _ in range(5):
        next(stream)
    resumed = TrainingLoader(data, mode, 1024, 200, seed=3)
    resumed.seek(loader.state()["step"])
    assert (next(iter(resumed))["input_ids"] == straight[5]["input_ids"]).all()
    other = next(iter(TrainingLoader(data, mode, 1024, 200, seed=4)))["input_ids"]
    assert (
        other.shape != straight[0]["input_ids"].shape or (other != straight[0]["input_ids"]).any()
    )


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_each_step_without_overlap(world):
    data = token_set(photo_lengths(400, 50))
    alone = TrainingLoader(data, "pictures", 2048, 300)
    ranks = [
        TrainingLoader(data, "pictures", 2048, 300, rank=rank, world_size=world)
        for rank in range(world)
    ]
    steps = {len(loader.batches.plan(0)) for loader in ranks}
    assert len(steps) == 1, "ranks must agree on the number of steps"
    for step, shares in enumerate(zip(*[epoch(loader) for loader in ranks])):
        rows = [names(share) for share in shares]
        assert all(rows)
        flat = [name for row in rows for name in row]
        assert len(set(flat)) == len(flat)
        assert sorted(flat) == sorted(alone.batches.plan(0)[step].tolist())
        assert max(map(len, rows)) - min(map(len, rows)) <= 1


@pytest.mark.parametrize("mode", ["chunks", "pictures", "rows"])
def test_more_processes_than_rows_learn_what_one_learns(mode):
    """Three rows for eight processes, of which five get padding, in every batch of an epoch; so do
    its last and smaller ones."""
    data, world = token_set(photo_lengths(50, 50)), 8
    alone = epoch(TrainingLoader(data, mode, 450, 150))
    shares = [
        epoch(TrainingLoader(data, mode, 450, 150, rank=rank, world_size=world))
        for rank in range(world)
    ]
    assert {len(share) for share in shares} == {len(alone)}
    few = 0
    for whole, *parts in zip(alone, *shares):
        learnt = np.sort(whole["labels"][whole["labels"] != IGNORE])
        found = np.concatenate([part["labels"].ravel() for part in parts])
        assert np.array_equal(learnt, np.sort(found[found != IGNORE]))
        assert all(part["input_ids"].shape[0] >= 1 for part in parts)
        few += any((part["labels"] == IGNORE).all() for part in parts)
    assert few


def test_chunks_are_shared_by_ranks():
    data = token_set(photo_lengths(300, 50))
    whole = next(iter(TrainingLoader(data, "chunks", 1024, 128)))["input_ids"]
    for rank in (0, 1):
        part = next(iter(TrainingLoader(data, "chunks", 1024, 128, rank=rank, world_size=2)))
        assert (part["input_ids"] == whole[rank::2]).all()


@pytest.mark.parametrize("mode", ["chunks", "pictures"])
def test_class_dropout(mode):
    data = token_set(photo_lengths(2000, 40), labelled=True)
    kept = np.concatenate(
        [batch["input_ids"].ravel() for batch in epoch(TrainingLoader(data, mode, 4096, 256))]
    )
    assert (kept == CLASS).any() and not (kept == BOS).any()
    loader = TrainingLoader(data, mode, 4096, 256, bos=BOS, class_dropout=0.25)
    batches = epoch(loader)
    ids = np.concatenate([batch["input_ids"].ravel() for batch in batches])
    share = (ids == BOS).sum() / ((ids == BOS) | (ids == CLASS)).sum()
    assert share == pytest.approx(0.25, abs=0.04)
    loader.seek(1)
    assert (next(iter(loader))["input_ids"] == batches[1]["input_ids"]).all()


def sequences(batches, mode):
    """(ids, labels) of each sequence that lies whole in a row."""
    for batch in batches:
        for ids, labels in zip(batch["input_ids"], batch["labels"]):
            ends = (np.flatnonzero(ids == EOS) + 1).tolist()
            starts = [0, *ends] if mode == "pictures" else ends
            for start, end in zip(starts, ends if mode == "pictures" else ends[1:]):
                yield ids[start:end], labels[start:end]


@pytest.mark.parametrize("mode", ["chunks", "pictures"])
def test_captions_are_read_and_not_learnt(mode):
    data = token_set(photo_lengths(1000, 40), labelled=True, text=3)
    loader = TrainingLoader(data, mode, 4096, 256, bos=BOS, class_dropout=0.3, caption_dropout=0.3)
    batches = epoch(loader)
    seen, with_text = set(), []
    for ids, labels in sequences(batches, mode):
        words = int((ids == WORD).sum())
        assert words in (0, 3) and (ids[:words] == WORD).all() and ids[words] in (BOS, CLASS)
        if words:
            assert (labels[: words + 1] == -100).all()
        assert (labels[words + 1 :] == ids[words + 1 :]).all()
        assert set(ids[words + 1 : -1]) == {ids[-2]}  # the picture is whole
        seen.add((words, int(ids[words])))
        with_text.append(words > 0)
    assert seen == {(0, BOS), (0, CLASS), (3, BOS), (3, CLASS)}
    assert np.mean(with_text) == pytest.approx(0.7, abs=0.07)
    loader.seek(2)
    assert (next(iter(loader))["input_ids"] == batches[2]["input_ids"]).all()
    loader.seek(loader.steps_per_epoch)  # other captions are left out in the next epoch
    again = [len(ids) for ids, _ in sequences(epoch(loader), mode)]
    assert sorted(again) != sorted(len(ids) for ids, _ in sequences(batches, mode))


def test_captions_are_left_out_alike_on_any_number_of_processes():
    data = token_set(photo_lengths(400, 50), text=3)
    alone = TrainingLoader(data, "pictures", 2048, 300, bos=BOS, caption_dropout=0.5)
    ranks = [
        TrainingLoader(
            data, "pictures", 2048, 300, rank=rank, world_size=2, bos=BOS, caption_dropout=0.5
        )
        for rank in (0, 1)
    ]
    for whole, *parts in islice(zip(alone, *ranks), 5):
        rows = [row[row > 0].tolist() for part in parts for row in part["input_ids"]]
        assert sorted(rows) == sorted(row[row > 0].tolist() for row in whole["input_ids"])


def test_without_captions_nothing_has_changed():
    """The numbers that classes and the order are drawn from are theirs alone."""
    lengths = photo_lengths(300, 40)
    plain = TrainingLoader(token_set(lengths, True), "pictures", 1024, 256, bos=BOS,
                           class_dropout=0.3)  # fmt: skip
    told = TrainingLoader(token_set(lengths, True, 2), "chunks", 1024, 256, bos=BOS,
                          class_dropout=0.3, caption_dropout=1.0)  # fmt: skip
    chunks = TrainingLoader(token_set(lengths, True), "chunks", 1024, 256, bos=BOS,
                            class_dropout=0.3)  # fmt: skip
    for mine, theirs in islice(zip(told, chunks), 8):
        assert (mine["input_ids"] == theirs["input_ids"]).all()
    assert epoch(plain)


def test_a_caption_is_cut_to_the_room_of_its_picture():
    lengths = np.array([10, 20, 30, 9])
    data = token_set(lengths, text=5)
    found, cut = data.fitted(26)
    assert cut == 1 and found.text.tolist() == [5, 5, 0, 5]
    assert found.lengths.tolist() == [15, 25, 30, 14]
    found, cut = data.fitted(23)
    assert cut == 2 and found.text.tolist() == [5, 3, 0, 5]
    for number, text in enumerate(found.text):
        part = found.ids(number).tolist()
        picture = [BOS, *[number] * (lengths[number] - 2), EOS]
        assert part == [WORD] * text + picture
    assert data.fitted(35) == (data, 0)


def test_held_out_bits_are_the_pictures_alone():
    data = token_set(photo_lengths(50, 40), text=4)
    for batch in validation_batches(data, 1024, 300):
        learnt = batch["labels"] >= 0
        assert (batch["input_ids"][:, :4] == WORD).all()
        assert (learnt.sum(axis=1) == data.lengths[batch["index"]] - 5).all()


def test_validation_gives_every_picture_once_over_the_ranks():
    lengths = photo_lengths(300, 50)
    data = token_set(lengths)
    for world in (1, 2):
        seen = []
        for rank in range(world):
            for batch in validation_batches(data, 1024, 120, rank, world):
                assert batch["input_ids"].size <= 1024
                assert names(batch) == batch["index"].tolist()
                seen += batch["index"].tolist()
        assert sorted(seen) == np.flatnonzero(lengths <= 120).tolist()


def test_few_pictures_still_make_a_batch():
    data = token_set(np.array([10, 12, 9]))
    for mode, length in (("chunks", 16), ("pictures", 64)):
        loader = TrainingLoader(data, mode, 4096, length)
        assert loader.steps_per_epoch == 1
        assert next(iter(loader))["input_ids"].shape[0] >= 1


def test_settings_that_cannot_work_are_refused():
    data = token_set(np.array([10, 12, 9]))
    with pytest.raises(InputError, match="packing"):
        TrainingLoader(data, "columns", 64, 16)
    with pytest.raises(InputError, match="at least 16"):
        TrainingLoader(data, "chunks", 15, 16)
    with pytest.raises(InputError, match=r"max_length is 4, .* has 9 tokens"):
        TrainingLoader(data, "pictures", 64, 4)
    with pytest.raises(InputError, match="class_dropout"):
        TrainingLoader(data, "pictures", 64, 16, class_dropout=2)
    with pytest.raises(InputError, match="caption_dropout"):
        TrainingLoader(data, "pictures", 64, 16, bos=BOS, caption_dropout=-0.1)


def test_select_takes_sequences_out():
    data = token_set(np.array([5, 7, 4, 6]))
    part = data.select(np.array([3, 1]))
    assert part.lengths.tolist() == [6, 7]
    assert part.ids(0)[1] == 3 and part.ids(1)[1] == 1 and part.total == 13
    assert part.stream_bits.tolist() == [48, 56]
    assert len(data.select(np.zeros(0, np.int64))) == 0


def test_what_does_not_fill_a_row_is_left_out():
    data = token_set(np.array([5, 7, 4, 6]))
    batches = Batches(data, mode="chunks", batch_tokens=16, length=8)
    assert sum(len(plan) for plan in batches.plan(0)) == 22 // 8


def holed(tokens, seed=0, fim=0.5, **changes):
    """A loader whose holes are a mark, the content turned round and another mark."""
    mark = 2000

    def arrange(ids, rng):
        return np.concatenate([[mark + int(rng.integers(5))], ids[::-1], [mark]])

    return TrainingLoader(
        tokens, "pictures", 1024, 200, seed, fim=fim, holes=(arrange, mark), **changes
    )


@pytest.mark.parametrize("text", [0, 3])
def test_holes_are_cut_anew_each_epoch_and_again_at_any_step(text):
    tokens = token_set(photo_lengths(400, 60), text=text)
    loader = holed(tokens, caption_dropout=0.5 if text else 0.0)
    first, second = epoch(loader), epoch(loader)
    cut = []
    for batches in (first, second):
        named = {}
        for batch in batches:
            for ids, labels in zip(batch["input_ids"], batch["labels"]):
                ids = ids[: int(np.flatnonzero(ids == EOS)[0]) + 1]
                head = int(np.flatnonzero(ids == BOS)[0])
                assert head in (0, text) and (labels[:head] == -100).all()
                marked = ids >= 2000
                assert ((labels[: len(ids)] == -100)[head + 1 :] == marked[head + 1 :]).all()
                picture = ids[head + 1 : -1][~marked[head + 1 : -1]]
                assert len(set(picture.tolist())) == 1
                named[int(picture[0])] = int(marked.sum()) == 2
        assert len(named) == 400 - loader.n_dropped > 390
        cut.append(named)
    shares = [np.mean(list(named.values())) for named in cut]
    assert all(0.4 < share < 0.6 for share in shares)
    assert sum(cut[0][name] != cut[1][name] for name in cut[0]) > 100
    again = holed(tokens, caption_dropout=0.5 if text else 0.0)
    again.seek(len(first) + 2)
    assert (next(iter(again))["input_ids"] == second[2]["input_ids"]).all()


def test_without_holes_nothing_changes_and_what_would_be_too_long_has_none():
    tokens = token_set(photo_lengths(200, 60))
    plain = epoch(TrainingLoader(tokens, "pictures", 1024, 200))
    none = epoch(holed(tokens, fim=0.0))
    assert all((a["input_ids"] == b["input_ids"]).all() for a, b in zip(plain, none))
    longest = token_set(np.full(30, 199))
    for batch in epoch(holed(longest, fim=1.0)):
        assert (batch["input_ids"] < 2000).all() and batch["input_ids"].shape[1] == 199
    for batch in epoch(holed(token_set(np.full(30, 198)), fim=1.0)):
        assert ((batch["input_ids"] >= 2000).sum(1) == 2).all()


def test_every_batch_of_chunks_has_something_to_learn():
    """Of captions that fill whole rows nothing is learnt, and a mean over nothing is none."""
    data = token_set(np.full(40, 9), text=50)
    loader = TrainingLoader(data, "chunks", 32, 16, bos=BOS, caption_dropout=0.2)
    batches = epoch(loader) + epoch(loader)
    assert all((batch["labels"][:, 1:] >= 0).any() for batch in batches)
    assert len(batches) > 80
    rows = np.concatenate([batch["labels"] for batch in batches])
    # All that are learnt are there, but for the few alone in the first place of a row.
    assert 0.97 < (rows >= 0).sum() / (2 * 40 * 8 + 2 * 40 * 0.2) < 1.03


def test_an_epoch_without_a_batch_is_passed_over():
    """One picture, a row with its caption and less without: every other epoch or so has nothing."""
    data = token_set(np.array([20]), text=10)
    made = None
    for seed in range(20):
        try:
            made = TrainingLoader(data, "chunks", 30, 30, seed, bos=BOS, caption_dropout=0.5)
        except InputError:
            continue
        straight = [batch["input_ids"] for batch in islice(made, 12)]
        assert all((ids == straight[0]).all() for ids in straight)
        assert made.state()["epoch"] > 12
        again = TrainingLoader(data, "chunks", 30, 30, seed, bos=BOS, caption_dropout=0.5)
        again.seek(12)
        assert again.state() == made.state()
    assert made is not None


@pytest.mark.parametrize("mode", ["pictures", "rows"])
def test_a_context_that_no_picture_fits_says_which_would(mode):
    with pytest.raises(InputError, match=r"max_length is 10, .* has 20 tokens; raise max_length"):
        TrainingLoader(token_set(np.array([30, 20, 25])), mode, 64, 10)
