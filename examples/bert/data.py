"""Labelled sentences: movie-review snippets from a package, or SST-2 from the Hugging Face hub.

The snippets are those of C. J. Hutto and E. Gilbert, "VADER: A Parsimonious Rule-based Model
for Sentiment Analysis of Social Media Text", ICWSM 2014: sentences from film reviews, each
rated from -4 to 4 by 20 people. They come inside the source distribution of vaderSentiment.
"""

from __future__ import annotations

import io
import os
import random
import tarfile
from pathlib import Path
from typing import NamedTuple

SNIPPETS_FILE = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
INNER_ARCHIVE = "additional_resources/hutto_ICWSM_2014.tar.gz"
DATA_VARIABLE = "RUNNER_EXAMPLES_DATA"
DEFAULT_FOLDER = Path(__file__).resolve().parents[2] / ".cache" / "data"
# Snippets whose mean rating is nearer to neutral than this are left out.
NEUTRAL_RATING_MAX = 0.5


class DataMissingError(FileNotFoundError):
    """The data is not on this machine; the message has the command that gets it."""


class Sentences(NamedTuple):
    texts: list[str]
    labels: list[int]  # 1 = positive, 0 = negative


class Data(NamedTuple):
    train: Sentences
    held_out: Sentences


def load_data(dataset: str, n_train: int, n_held_out: int, seed: int = 0) -> Data:
    """A seeded split of `dataset` ("snippets" or "sst2") into training and held-out sentences.

    The held-out part depends on the seed and its own size alone, so that runs with more
    training sentences are judged on the same ones.

    Raises:
        DataMissingError: the snippets are not on this machine.
        ValueError: an unknown data set, or more sentences wanted than there are.
    """
    if dataset == "snippets":
        rows = load_snippets()
        random.Random(seed).shuffle(rows)
        _check_size(dataset, len(rows), n_train + n_held_out)
        train, held_out = rows[n_held_out : n_held_out + n_train], rows[:n_held_out]
    elif dataset == "sst2":
        train, held_out = _load_sst2(n_train, n_held_out, seed)
    else:
        raise ValueError(f"unknown data set {dataset!r}; valid ones: snippets, sst2")
    return Data(_sentences(train), _sentences(held_out))


def _check_size(dataset: str, available: int, wanted: int) -> None:
    if wanted > available:
        raise ValueError(f"{dataset} has {available} sentences, {wanted} were asked for")


def _sentences(rows: list[tuple[str, int]]) -> Sentences:
    return Sentences([text for text, _ in rows], [label for _, label in rows])


# ---- movie-review snippets ----
def load_snippets() -> list[tuple[str, int]]:
    """All clearly positive (1) and clearly negative (0) snippets, in the file's order."""
    rows = []
    for line in _read_snippets().splitlines():
        _, rating, text = line.split("\t", 2)
        if abs(float(rating)) > NEUTRAL_RATING_MAX:
            rows.append((text.strip(), int(float(rating) > 0)))
    return rows


def _read_snippets() -> str:
    """The ground-truth file, from wherever it is: a folder, the inner archive, the source distribution."""
    place = Path(os.environ.get(DATA_VARIABLE) or DEFAULT_FOLDER)
    candidates = [place] if place.is_file() else _inside(place)
    for path in candidates:
        if path.suffix == ".txt":
            return path.read_text(encoding="utf-8")
        with tarfile.open(path) as archive:
            return _read_archive(archive).decode("utf-8")
    raise DataMissingError(
        f"no movie-review snippets in {place}; `make demo` gets them, or by hand:\n"
        f"  pip download --no-binary :all: --no-deps -d {place} vaderSentiment==3.3.2\n"
        f"({DATA_VARIABLE} may name another folder, or the archive itself)"
    )


def _inside(folder: Path) -> list[Path]:
    patterns = (
        f"**/{SNIPPETS_FILE.rpartition('/')[2]}",
        "**/hutto_ICWSM_2014.tar.gz",
        "**/vader[sS]entiment-*.tar.gz",
    )
    return [path for pattern in patterns for path in sorted(folder.glob(pattern))]


def _read_archive(archive: tarfile.TarFile) -> bytes:
    """The snippets out of the inner archive, or out of the source distribution around it."""
    for member in archive:
        if member.name.endswith(SNIPPETS_FILE) and (file := archive.extractfile(member)):
            return file.read()
        if member.name.endswith(INNER_ARCHIVE) and (file := archive.extractfile(member)):
            with tarfile.open(fileobj=io.BytesIO(file.read())) as inner:
                return _read_archive(inner)
    raise DataMissingError(f"{archive.name!s} does not contain {SNIPPETS_FILE}")


# ---- SST-2 ----
def _load_sst2(n_train: int, n_held_out: int, seed: int) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Training sentences from SST-2's train part, held-out ones from its validation part."""
    try:
        from datasets import load_dataset
    except ImportError:
        raise DataMissingError(
            "--dataset sst2 needs the `datasets` package (pip install datasets) and, the first time, a network"
        ) from None
    parts = []
    for part, count in (("train", n_train), ("validation", n_held_out)):
        whole = load_dataset("stanfordnlp/sst2", split=part)
        _check_size(f"sst2 ({part})", len(whole), count)
        chosen = whole.shuffle(seed=seed).select(range(count))
        parts.append([(str(row["sentence"]).strip(), int(row["label"])) for row in chosen])
    return parts[0], parts[1]
