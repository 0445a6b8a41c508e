from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from bert.data import DATA_VARIABLE, SNIPPETS_FILE, DataMissingError, load_data, load_snippets

LINES = [f"{number}\t{rating}\tsnippet {number}" for number, rating in enumerate([2.5, -1.0, 0.4, -0.5, 3.0, -0.6], 1)]
TEXT = "\r\n".join(LINES) + "\r\n"
CLEAR = [("snippet 1", 1), ("snippet 2", 0), ("snippet 5", 1), ("snippet 6", 0)]


def archive(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


INNER = archive(SNIPPETS_FILE, TEXT.encode())
OUTER = archive("vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz", INNER)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt", TEXT.encode()),
        ("hutto_ICWSM_2014.tar.gz", INNER),
        ("vaderSentiment-3.3.2.tar.gz", OUTER),
        ("vadersentiment-3.3.2.tar.gz", OUTER),
    ],
)
@pytest.mark.parametrize("is_folder", [True, False])
def test_it_is_found_in_any_form(
    file: str, content: bytes, is_folder: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path if is_folder else path))
    assert load_snippets() == CLEAR


def test_a_missing_file_is_told_with_the_command_that_gets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(DataMissingError, match=r"pip download --no-binary :all: --no-deps -d .* vaderSentiment==3.3.2"):
        load_data("snippets", 10, 10)


def test_another_archive_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "other.tar.gz"
    path.write_bytes(archive("readme", b"x"))
    monkeypatch.setenv(DATA_VARIABLE, str(path))
    with pytest.raises(DataMissingError, match=r"other\.tar\.gz does not contain"):
        load_snippets()


def test_the_real_snippets() -> None:
    rows = load_snippets()
    assert len(rows) == 10043
    assert sum(label for _, label in rows) == 4982


def test_the_split_is_seeded_and_the_parts_do_not_meet() -> None:
    data = load_data("snippets", 320, 300)
    assert (len(data.train.texts), len(data.held_out.texts)) == (320, 300)
    assert load_data("snippets", 320, 300) == data
    assert load_data("snippets", 320, 300, seed=1) != data
    assert not set(data.train.texts) & set(data.held_out.texts)
    assert load_data("snippets", 50, 300).held_out == data.held_out
    assert set(data.train.labels) == {0, 1}


def test_more_than_there_is() -> None:
    with pytest.raises(ValueError, match="10043 sentences, 10300 were asked for"):
        load_data("snippets", 10000, 300)


def test_an_unknown_data_set() -> None:
    with pytest.raises(ValueError, match="valid ones: snippets, sst2"):
        load_data("imdb", 1, 1)
