"""Verbs on files and data: check, prepare, train-tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jpeglm.cli.common import JsonOption, note, show
from jpeglm.cli.options import Fields, with_options
from jpeglm.config import Stopped

if TYPE_CHECKING:
    from jpeglm.data.choose import CodecChoice
    from jpeglm.data.settings import PoolConfig, PrepareConfig
    from jpeglm.data.vocabulary import TokenizerConfig

verbs = typer.Typer()

CODECS = {
    "jpeg": "config:JpegConfig",
    "avc": "codecs.avc:AvcConfig",
    "pixels": "codecs.pixels:PixelsConfig",
    "vq": "codecs.vq:VqConfig",
}
FOUND = ("encoder", "weights", "kind", "model")
"""Settings of codecs that the preset says, or a codec's folder."""


@verbs.command()
@with_options(
    settings=Fields("config:JpegConfig", skip=("fit",), given=True, default="the file's own")
)
def check(
    files: Annotated[
        list[Path],
        typer.Argument(help="JPEG files; clips, with --checkpoint."),
    ],
    settings: dict[str, Any],
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="Require the settings of this checkpoint's codec (a folder or a shipped name)."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether each file is a canonical, complete stream and, if not, at which byte and why.

    Settings that you give are required; the others are read from each file. Exit code 1
    if any file fails.

    \b
    Examples:
      jpeglm check photo-completions/completion-*.jpg
      jpeglm check --restart-interval 1 --quality 25 sample.jpg
    """
    from jpeglm.data.judge import judge_files

    judged = judge_files(files, settings, checkpoint)
    failed = sum(not verdict.valid for _, verdict in judged)
    result = {
        "files": [{"file": str(file), **asdict(verdict)} for file, verdict in judged],
        "failed": failed,
        "dc_leaves_int16": sum(verdict.valid and not verdict.dc_fits for _, verdict in judged),
    }
    lines = [f"{file}: {verdict}" for file, verdict in judged]
    if len(files) > 1:
        lines.append(f"{len(files) - failed} of {len(files)} files are valid")
    show(result, as_json, lines)
    if failed:
        raise typer.Exit(1)


@verbs.command()
@with_options(
    choice=Fields("data.choose:CodecChoice"),
    settings=Fields(CODECS, skip=FOUND, given=True),
    config=Fields("data.settings:PrepareConfig"),
    pool=Fields("data.settings:PoolConfig"),
)
def prepare(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder tree of pictures (or films, with --codec avc), WebDataset tars, Parquet "
            "with an image or video column, or a dataset saved by Hugging Face datasets; also "
            "s3://bucket/photos and the like, with the extra remote.",
        ),
    ],
    out: Annotated[
        str, typer.Argument(help="Folder for the shards; also s3://bucket/data and the like.")
    ],
    choice: CodecChoice,
    settings: dict[str, Any],
    config: PrepareConfig,
    pool: PoolConfig,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            help="Also write token shards by this tokenizer, for training hosts without numba."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Encode pictures or films into Parquet shards of canonical streams.

    A film is cut into consecutive clips. Among films a picture becomes a pan across it; among
    pictures an animation gives its first frame. Unreadable files are listed in rejected.jsonl and
    do not stop the run; files of other kinds are counted. If it is stopped, the same command
    resumes.

    \b
    Examples:
      jpeglm prepare photos/ data --crops 24
      jpeglm prepare films/ clips --codec avc
      jpeglm prepare drawings/ data-like-photos --like photos
      jpeglm prepare s3://bucket/photos s3://bucket/data --crops 24
    """
    from jpeglm.data.choose import choose_codec
    from jpeglm.data.prepare import prepare as prepare_data
    from jpeglm.progress import Reporter
    from jpeglm.remote import place
    from jpeglm.tokenizer import Tokenizer

    pictures, shards = place(source), place(out)
    codec = choose_codec(choice, settings, pictures, shards, config, note)
    what = "films" if codec.media == "clip" else "pictures"
    with Reporter("prepare", what) as report, _resumable(shards):
        result = prepare_data(
            pictures,
            shards,
            codec,
            config,
            tokenizer=Tokenizer.load(tokenizer) if tokenizer else None,
            **pool.to_dict(),
            progress=lambda done, total, streams: report(done, total, f"{streams} streams"),
        )
        for warning in result["warnings"]:
            report.say(f"warning: {warning}")
    show({"out": str(out), **result}, as_json, _prepared(shards, result, what))


@contextmanager
def _resumable(out: Path) -> Iterator[None]:
    """Ctrl-C says how to go on."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise Stopped(
            f"stopped; the shards in {out} are whole, and the same command resumes from there"
        ) from error


def _prepared(out: Path, result: dict[str, Any], what: str) -> list[str]:
    counts = ", ".join(f"{count} {split}" for split, count in result["streams"].items())
    sources = ", ".join(f"{count} {split}" for split, count in result["pictures"].items())
    lines = [f"{out}/: {counts} streams of {sources} {what}"]
    if crops := result.get("crops_by_folder"):
        fewer = {name: count for name, count in crops.items() if count < max(crops.values())}
        told = ", ".join(f"{count} of {name or 'no folder'}" for name, count in fewer.items())
        lines.append(f"balanced: {max(crops.values())} crops of a picture, {told or 'of each'}")
    if result["rejected"]:
        count = result["rejected"]  # also of archives, of which more is lost than a picture
        entries = f"{count} entries" if count > 1 else "1 entry"
        lines.append(f"{entries} of what was set aside, see {out / 'rejected.jsonl'}")
    if result["animations"]:
        lines.append(f"{result['animations']} animations or documents gave their first frame")
    if splits := result["source"]["splits"]:
        kept = ", ".join(f"{name} to {side}" for name, side in splits.items())
        lines.append(f"the source's own splits were kept: {kept}")
    if captions := result.get("captions"):
        found = f"{captions['pictures']} {what} have captions ({', '.join(captions['from'])})"
        lines.append(f"{found}, {captions['without']} have none")
    if passed := result["passed_over"]:
        kinds = [f"{count} {kind}" for kind, count in passed.items()]
        more = f" and {len(kinds) - 8} other kinds" if len(kinds) > 8 else ""
        lines.append(f"passed over: {', '.join(kinds[:8])}{more}")
    return lines


@verbs.command("train-tokenizer")
@with_options(
    config=Fields("data.vocabulary:TokenizerConfig"),
    settings=Fields("config:JpegConfig", only=("size",), given=True),
)
def train_tokenizer(
    *,
    data: Annotated[str, typer.Argument(help="Prepared shards, or a folder of pictures.")],
    out: Annotated[Path, typer.Option(help="Folder for the tokenizer's files.")] = Path(
        "tokenizer"
    ),
    config: TokenizerConfig,
    settings: dict[str, Any],
    as_json: JsonOption = False,
) -> None:
    """Learn a BPE vocabulary from training streams and write tokenizer.json.

    \b
    Examples:
      jpeglm train-tokenizer data --out tokenizer
      jpeglm train-tokenizer data --alphabet bytes --vocab-size 320
    """
    from jpeglm.data.vocabulary import learn_tokenizer
    from jpeglm.files import atomic_folder
    from jpeglm.folders import TOKENIZER, claim, quoted
    from jpeglm.progress import Reporter
    from jpeglm.remote import near

    source = near(data)
    claim(out, TOKENIZER, inputs=[source])
    with Reporter("train-tokenizer", "merges") as report:
        tokenizer = learn_tokenizer(source, config, settings, report)
    with atomic_folder(out, TOKENIZER.names) as draft:
        tokenizer.save(draft)
    result = {
        "out": str(out),
        "alphabet": tokenizer.alphabet.name,
        "symbols": tokenizer.n_base,
        "merges": len(tokenizer.merges),
        "vocab_size": tokenizer.vocab_size,
        "text_vocab_size": tokenizer.text.size if tokenizer.text else 0,
        "fingerprint": tokenizer.fingerprint,
    }
    show(
        result,
        as_json,
        [
            f"{out / 'tokenizer.json'}: {result['alphabet']}, {tokenizer.n_base} symbols, "
            f"{len(tokenizer.merges)} merges, {tokenizer.vocab_size} tokens"
            + (f", {tokenizer.text.size} of them for text" if tokenizer.text else ""),
            f"next: jpeglm train {quoted(data)} --tokenizer {quoted(out)} --minutes 30",
        ],
    )
