"""Put the movie-review snippets into .cache/data/hutto_ICWSM_2014.

The data is in the source distribution of vaderSentiment 3.3.2 and in no wheel.
Source: Hutto, C.J. & Gilbert, E.E. (2014). VADER: A Parsimonious Rule-based Model
for Sentiment Analysis of Social Media Text. ICWSM-14.
"""

from __future__ import annotations

import hashlib
import io
import pathlib
import subprocess
import sys
import tarfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = ROOT / ".cache" / "data"
NAME = "vaderSentiment"
VERSION = "3.3.2"
SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
FOLDER = "hutto_ICWSM_2014"
WANTED = "movieReviewSnippets_GroundTruth.txt"


def _sdist() -> pathlib.Path:
    """The source distribution, downloaded with pip unless it is there."""
    path = DATA / f"{NAME}-{VERSION}.tar.gz"
    if not path.exists():
        DATA.mkdir(parents=True, exist_ok=True)
        # pip asks the package for its metadata, so its build tools are fetched as well; only this one package is source.
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
        subprocess.run([*command, "--no-binary", NAME, "--dest", str(DATA), f"{NAME}=={VERSION}"], check=True)
    seen = hashlib.sha256(path.read_bytes()).hexdigest()
    if seen != SHA256:
        sys.exit(f"{path}: sha256 is {seen}, expected {SHA256}; remove the file and run the same command again")
    return path


def _unpack(tar: tarfile.TarFile, name: str) -> None:
    """Write one member; under a temporary name first, so that an interrupted run leaves no half file."""
    try:
        source = tar.extractfile(f"{FOLDER}/{name}")
    except KeyError:
        source = None
    if source is None:
        sys.exit(f"{FOLDER}.tar.gz holds no {name}")
    part = DATA / FOLDER / f"{name}.part"
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_bytes(source.read())
    part.rename(DATA / FOLDER / name)


def main() -> int:
    """Download and unpack what is missing; a second run does nothing."""
    if (DATA / FOLDER / WANTED).exists():
        return 0
    with tarfile.open(_sdist()) as outer:
        inner = outer.extractfile(f"{NAME}-{VERSION}/additional_resources/{FOLDER}.tar.gz")
        if inner is None:
            sys.exit(f"{NAME} {VERSION} holds no {FOLDER}.tar.gz")
        with tarfile.open(fileobj=io.BytesIO(inner.read())) as tar:
            for name in (WANTED, "_README_.txt"):
                _unpack(tar, name)
    print(f"== data: {DATA / FOLDER / WANTED}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
