"""Verbs on files and data: check, prepare, train-tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from jpeglm.cli.common import (
    JsonOption,
    SeedOption,
    SizeOption,
    check_preset,
    clip_codec,
    codec_like,
    codec_settings,
    finite,
    is_film,
    learned_codec,
    parse_size,
    show,
)
from jpeglm.config import MAX_SEED, InputError, Stopped

verbs = typer.Typer()


@verbs.command()
def check(
    files: Annotated[
        list[Path],
        typer.Argument(help="JPEG files; clips, with --checkpoint."),
    ],
    size: Annotated[str | None, typer.Option(help="Demand this size: 64 or 128x96.")] = None,
    quality: Annotated[int | None, typer.Option(help="Demand this quality.")] = None,
    subsampling: Annotated[
        str | None, typer.Option(help="Demand 4:2:0, 4:2:2, 4:4:4 or gray.")
    ] = None,
    restart_interval: Annotated[
        int | None, typer.Option(help="Demand a restart marker after so many MCUs; 0: none.")
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="Demand the settings of this checkpoint's codec (a folder, or a shipped name)."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell of each file whether it is a canonical, complete stream, or at which byte it is not.

    What is not demanded is read from the file itself. Exit code 1 if any file fails.
    """
    from jpeglm.codecs.check import MOST_BYTES, Verdict, check_clip, check_file
    from jpeglm.files import read_bytes

    wanted: dict[str, Any] = {
        "quality": quality,
        "subsampling": subsampling,
        "restart_interval": restart_interval,
    }
    codec_of: Any = None
    if checkpoint is not None:
        from jpeglm.checkpoint import checkpoint_folder
        from jpeglm.tokenizer import Tokenizer

        codec_of = Tokenizer.load(checkpoint_folder(checkpoint)).codec
        if codec_of.name not in ("jpeg", "avc"):
            raise InputError(f"{checkpoint} has the codec {codec_of.name}, which writes no files")
        settings = codec_of.to_dict()
        wanted |= {name: settings[name] for name in settings if name not in ("codec", "fit")}
    if size is not None:
        wanted["width"], wanted["height"] = parse_size(size)
    clips = codec_of is not None and codec_of.name == "avc"

    def judge(file: Path) -> Verdict:
        if clips:
            return check_clip(read_bytes(file, MOST_BYTES), codec_of)
        if is_film(file):
            raise InputError("a film is checked against a checkpoint's codec; give --checkpoint")
        return check_file(read_bytes(file, MOST_BYTES), wanted)

    results: list[dict[str, Any]] = []
    lines: list[str] = []
    for file in files:
        try:
            verdict = judge(file)
            valid, reason, fits, codec = (
                verdict.valid,
                verdict.reason,
                verdict.dc_fits,
                verdict.codec,
            )
        except InputError as error:
            valid, reason, fits, codec = False, str(error), True, None
        except Exception as error:  # whatever a file does, the next one is judged
            valid, reason, fits, codec = False, f"cannot be judged: {error!r}", True, None
        results.append(
            {"file": str(file), "valid": valid, "reason": reason, "dc_fits": fits, "codec": codec}
        )
        note = "" if fits else " (running DC values leave int16: decoders may disagree)"
        lines.append(f"{file}: {'valid' + note if valid else reason}")
    failed = sum(not result["valid"] for result in results)
    leaving = sum(bool(result["valid"] and not result["dc_fits"]) for result in results)
    summary = {"files": results, "failed": failed, "dc_leaves_int16": leaving}
    if len(files) > 1:
        lines.append(f"{len(files) - failed} of {len(files)} files are valid")
    show(summary, as_json, lines)
    if failed:
        raise typer.Exit(1)


@verbs.command()
def prepare(
    source: Annotated[
        Path,
        typer.Argument(
            help="A folder tree of pictures (or films, with --codec avc), WebDataset tars, Parquet "
            "with an image or video column, or a dataset saved by Hugging Face datasets."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="Folder for the shards.")],
    codec: Annotated[
        str | None,
        typer.Option(
            help="jpeg; avc, clips as H.264; vq, the codes of a VQ-VAE (needs --codec-dir); "
            "pixels, a learnt palette.",
            show_default="jpeg",
        ),
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(
            help="Take the codec and its settings from a checkpoint (a folder, or a shipped one's "
            "name), a tokenizer, or prepared data."
        ),
    ] = None,
    codec_dir: Annotated[
        Path | None,
        typer.Option(
            help="Codec folder: of train-vqvae, a diffusers VQModel, or data prepared with pixels."
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="paper: 256 px, quality 25, 4:2:0, a marker every MCU; avc: a slice for each "
            "macroblock, three references."
        ),
    ] = None,
    size: SizeOption = None,
    quality: Annotated[
        int | None, typer.Option(help="JPEG quality, 1 to 100. Default: 25.")
    ] = None,
    subsampling: Annotated[
        str | None, typer.Option(help="4:2:0, 4:2:2, 4:4:4 or gray. Default: 4:2:0.")
    ] = None,
    restart_interval: Annotated[
        int | None, typer.Option(help="MCUs between restart markers; 0 (default) is none.")
    ] = None,
    frames: Annotated[int | None, typer.Option(help="Of a clip (avc). Default: 15.")] = None,
    fps: Annotated[
        float | None, typer.Option(callback=finite, help="Frames a second (avc). Default: 3.")
    ] = None,
    qp: Annotated[
        int | None, typer.Option(help="Quantiser of H.264, 1 (best) to 51 (avc). Default: 37.")
    ] = None,
    slices: Annotated[
        int | None, typer.Option(help="Slices of each frame (avc). Default: 1.")
    ] = None,
    fit: Annotated[
        str | None,
        typer.Option(help="crop the middle out, or pad with black. Default: crop; avc: pad."),
    ] = None,
    crops: Annotated[
        int,
        typer.Option(
            help="Random crops of many scales, and flips, of each picture, or of each clip's "
            "length of a film; 0: whole."
        ),
    ] = 0,
    clips: Annotated[
        int, typer.Option(help="Only so many clips from each film's beginning (avc); 0: all.")
    ] = 0,
    validation: Annotated[
        float,
        typer.Option(
            callback=finite, help="Share of the pictures held out, chosen by their content."
        ),
    ] = 0.05,
    split: Annotated[
        str,
        typer.Option(
            help="hash (by content; a saved DatasetDict keeps its own); folder (SOURCE/train, "
            "SOURCE/validation: keeps a scene of several pictures on one side); or all to train, "
            "or all to validation."
        ),
    ] = "hash",
    labels: Annotated[
        str, typer.Option(help="source (where it has some), folder (names of folders) or none.")
    ] = "source",
    column: Annotated[
        str | None,
        typer.Option(
            help="Which column of a table, or which image of a sample in a tar (png, seg.png), is "
            "the picture. Default: the only one, or image; of 7.jpg and 7.png the JPEG."
        ),
    ] = None,
    seed: SeedOption = 0,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Write token shards beside, for hosts without numba.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes. Default: all cores.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Encode pictures or films into Parquet shards of canonical streams.

    A film gives clips one after the other; a picture among films gives a pan over it; an animation
    among pictures gives its first frame. Unreadable files are listed in rejected.jsonl and do not
    stop the run; files of other kinds are counted. Killed at any moment, the same command goes on.
    """
    from jpeglm.checkpoint import checkpoint_folder
    from jpeglm.codecs import make_codec
    from jpeglm.data.prepare import prepare as prepare_data
    from jpeglm.data.settings import PrepareConfig
    from jpeglm.progress import Reporter
    from jpeglm.tokenizer import Tokenizer

    shared = codec_like(like, codec, codec_dir, preset, size, fit) if like is not None else None
    codec = shared.name if shared else codec or "jpeg"
    config = PrepareConfig(
        crops=crops,
        clips=clips,
        validation=validation,
        split=split,
        labels=labels,
        seed=seed,
        column=column,
    )
    made: Any
    options: dict[str, dict[str, Any]] = {
        "jpeg": {"--quality": quality, "--subsampling": subsampling,
                 "--restart-interval": restart_interval},
        "avc": {"--frames": frames, "--fps": fps, "--qp": qp, "--slices": slices,
                "--clips": clips or None},
    }  # fmt: skip
    for owner, values in options.items():
        given = [name for name, value in values.items() if value is not None]
        if given and owner != codec:
            raise InputError(f"{given[0]} belongs to the codec {owner}, not to {codec}")
    if preset is not None and codec not in ("jpeg", "avc"):
        raise InputError(f"--preset belongs to the codecs jpeg and avc, not to {codec}")
    given = [
        name
        for name, value in options.get(codec, {}).items()
        if value is not None and name != "--clips"
    ]
    if shared is not None:
        if given:
            raise InputError(f"{given[0]} cannot be given with --like, which says it")
        made = shared
    elif codec == "jpeg" and codec_dir is None:
        settings = codec_settings(preset, size, quality, subsampling, restart_interval, fit)
        made = make_codec({"codec": "jpeg", **settings})
    elif codec == "avc" and codec_dir is None:
        made = clip_codec(preset, size, frames, fps, qp, slices, fit)
    else:
        if given:
            raise InputError(f"{given[0]} cannot be given with --codec-dir, which says it")
        made = learned_codec(codec, codec_dir, source, out, size, fit, config)
    what = "films" if made.media == "clip" else "pictures"
    with Reporter("prepare", what) as report, _resumable(out):
        result = prepare_data(
            source,
            out,
            made,
            config,
            tokenizer=Tokenizer.load(checkpoint_folder(tokenizer)) if tokenizer else None,
            workers=workers,
            progress=lambda done, total, streams: report(done, total, f"{streams} streams"),
        )
        for warning in result["warnings"]:
            report.say(f"warning: {warning}")
    show({"out": str(out), **result}, as_json, _prepared(out, result, what))


@contextmanager
def _resumable(out: Path) -> Iterator[None]:
    """Ctrl-C says how to go on."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise Stopped(
            f"stopped; the shards in {out} are whole, and the same command goes on from there"
        ) from error


def _prepared(out: Path, result: dict[str, Any], what: str) -> list[str]:
    counts = ", ".join(f"{count} {split}" for split, count in result["streams"].items())
    sources = ", ".join(f"{count} {split}" for split, count in result["pictures"].items())
    lines = [f"{out}/: {counts} streams of {sources} {what}"]
    if result["rejected"]:
        aside = f"{result['rejected']} {what if result['rejected'] > 1 else what[:-1]}"
        lines.append(f"{aside} set aside, see {out / 'rejected.jsonl'}")
    if result["animations"]:
        lines.append(f"{result['animations']} animations or documents gave their first frame")
    if splits := result["source"]["splits"]:
        kept = ", ".join(f"{name} to {side}" for name, side in splits.items())
        lines.append(f"the source's own splits were kept: {kept}")
    if passed := result["passed_over"]:
        kinds = [f"{count} {kind}" for kind, count in passed.items()]
        more = f" and {len(kinds) - 8} other kinds" if len(kinds) > 8 else ""
        lines.append(f"passed over: {', '.join(kinds[:8])}{more}")
    return lines


def _training_data(data: Path, codec: Any) -> Any:
    """`open_data`; where there are only films, the sentence says what to do with them."""
    from jpeglm.data.open import open_data
    from jpeglm.data.sources import open_source
    from jpeglm.folders import kind_of, quoted

    try:
        return open_data(data, codec)
    except InputError:
        if codec is None or codec.media == "clip" or not data.is_dir() or kind_of(data):
            raise
        open_source(data, films=True)  # raises as well where there is nothing at all
        made = f"{data.name}-shards"
        raise InputError(
            f"{data} holds films, which are prepared first; run: jpeglm prepare {quoted(data)} "
            f"{quoted(made)} --codec avc, and then this command with {quoted(made)}"
        ) from None


@verbs.command("train-tokenizer")
def train_tokenizer(
    data: Annotated[Path, typer.Argument(help="Prepared shards, or a folder of pictures.")],
    out: Annotated[Path, typer.Option(help="Folder for the tokenizer's files.")] = Path(
        "tokenizer"
    ),
    alphabet: Annotated[
        str | None,
        typer.Option(
            help="Of JPEG: jpeg-block-symbols (default), jpeg-symbols, jpeg-coarse-symbols (DC "
            "first), bytes, or paper-bytes (the preset's). Of avc: avc-placed-symbols (default), "
            "avc-symbols or bytes. Of vq and pixels: codes."
        ),
    ] = None,
    vocab_size: Annotated[
        int | None,
        typer.Option(
            help="Tokens in all, BOS and EOS included. Default: 1024; of codes, no merges."
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="paper: plain BPE 320 over whole streams of 256 px, quality 25; of clips, 1024 "
            "over bytes."
        ),
    ] = None,
    classes: Annotated[
        int, typer.Option(min=0, max=65_000, help="Class tokens, one for each label of the data.")
    ] = 0,
    limit: Annotated[
        int, typer.Option(min=1, max=MAX_SEED, help="Streams to learn from.")
    ] = 10_000,
    size: SizeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Learn a BPE vocabulary from training streams and write tokenizer.json."""
    from itertools import islice

    from jpeglm.codecs import make_codec
    from jpeglm.data.open import open_data
    from jpeglm.files import atomic_folder
    from jpeglm.folders import TOKENIZER, claim, quoted
    from jpeglm.progress import Reporter
    from jpeglm.tokenizer import Tokenizer

    claim(out, TOKENIZER, inputs=[data])
    wanted = None
    prepared = (data / "dataset.json").exists()
    clips = prepared and open_data(data).codec.media == "clip"
    if clips:
        check_preset(preset)
    elif preset or size or not prepared:
        settings = codec_settings(preset, size, None, None, None)
        wanted = make_codec({"codec": "jpeg", **settings})
    dataset = _training_data(data, wanted)
    codec = dataset.codec
    alphabet = alphabet or (
        codec.alphabets[0] if not preset else "bytes" if clips else "paper-bytes"
    )
    if vocab_size is None:
        # Codes are the units that a learned codec chose; merging them is left to who asks for it.
        codes = codec.alphabet("codes").size + 2 if "codes" in codec.alphabets else 0
        vocab_size = codes or (320 if preset and not clips else 1024)
    with Reporter("train-tokenizer", "merges") as report:
        streams = (stream for _, stream, _ in islice(dataset.streams("train"), limit))
        names = dataset.label_names if len(dataset.label_names) == classes else []
        tokenizer = Tokenizer.train(streams, codec, alphabet, vocab_size, classes, names, report)
    with atomic_folder(out, TOKENIZER.names) as draft:
        tokenizer.save(draft)
    result = {
        "out": str(out),
        "alphabet": alphabet,
        "symbols": tokenizer.n_base,
        "merges": len(tokenizer.merges),
        "vocab_size": tokenizer.vocab_size,
        "fingerprint": tokenizer.fingerprint,
    }
    show(
        result,
        as_json,
        [
            f"{out / 'tokenizer.json'}: {alphabet}, {tokenizer.n_base} symbols, "
            f"{len(tokenizer.merges)} merges, {tokenizer.vocab_size} tokens",
            f"next: jpeglm train {quoted(data)} --tokenizer {quoted(out)} --minutes 30",
        ],
    )
