"""Makes a small cache of the hub, as `huggingface_hub` and `datasets` would have left it after a download.

`python hub_cache.py model FOLDER` or `python hub_cache.py dataset FOLDER`; afterwards HF_HOME=FOLDER and HF_HUB_OFFLINE=1
find `bert-base-uncased` (two narrow layers, random weights) and `stanfordnlp/sst2` (a few of the movie-review snippets).
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

REVISION = "0" * 40


def make_model(home: Path) -> None:
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    from bert.model import packaged_folder

    repository = home / "hub" / "models--bert-base-uncased"
    snapshot = repository / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(REVISION)
    narrow = BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    BertForMaskedLM(narrow).save_pretrained(snapshot)
    AutoTokenizer.from_pretrained(packaged_folder()).save_pretrained(snapshot)


def make_dataset(home: Path) -> None:
    from datasets import load_dataset

    from bert.data import load_snippets

    rows = load_snippets()
    files = {}
    for part, some in (("train", rows[:60]), ("validation", rows[-40:])):
        files[part] = str(home / f"{part}.jsonl")
        lines = [
            json.dumps({"idx": index, "sentence": text, "label": label}) for index, (text, label) in enumerate(some)
        ]
        Path(files[part]).write_text("\n".join(lines))
    load_dataset("json", data_files=files, cache_dir=str(home / "made"))
    # What the json builder cached becomes what a download of stanfordnlp/sst2 would have cached.
    made = next((home / "made").glob("json/*/*/*/dataset_info.json")).parent
    cached = home / "datasets" / "stanfordnlp___sst2" / "default" / "0.0.0" / REVISION
    cached.mkdir(parents=True)
    for path in made.glob("json-*.arrow"):
        shutil.copy(path, cached / path.name.replace("json-", "sst2-"))
    info = json.loads((made / "dataset_info.json").read_text())
    info.update(config_name="default", dataset_name="sst2", builder_name="sst2")
    for split in info["splits"].values():
        split["dataset_name"] = "sst2"
    (cached / "dataset_info.json").write_text(json.dumps(info))


if __name__ == "__main__":
    {"model": make_model, "dataset": make_dataset}[sys.argv[1]](Path(sys.argv[2]))
