"""The settings of one fine-tuning run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any


class ConfigError(ValueError):
    """A setting is unknown or out of range; the message names it and the valid ones."""


@dataclass(frozen=True)
class Config:
    """One variant. `name` is what the live view, the ranking and the plot call it."""

    name: str
    lr: float = 1e-4
    batch_size: int = 32
    epochs: int = 3
    max_len: int = 64  # tokens; longer snippets are cut
    warmup: float = 0.1  # share of all steps in which the learning rate rises
    weight_decay: float = 0.01
    freeze_layers: int = 0  # how many of the lowest transformer layers stay as they are
    seed: int = 0
    model: str = "minilm"

    def __post_init__(self) -> None:
        checks = {
            "name": bool(self.name),
            "lr": self.lr > 0,
            "batch_size": self.batch_size >= 1,
            "epochs": self.epochs >= 1,
            "max_len": 2 <= self.max_len <= 512,
            "warmup": 0 <= self.warmup < 1,
            "weight_decay": self.weight_decay >= 0,
            "freeze_layers": self.freeze_layers >= 0,
        }
        for setting, is_fine in checks.items():
            if not is_fine:
                raise ConfigError(f"{setting}={getattr(self, setting)!r} is out of range")

    def with_settings(self, settings: Mapping[str, Any]) -> Config:
        """A copy with some settings replaced, as read from a config file.

        Raises:
            ConfigError: an unknown setting, a wrong type or a value out of range.
        """
        kinds = {field.name: type(getattr(self, field.name)) for field in fields(self)}
        if unknown := sorted(set(settings) - set(kinds)):
            raise ConfigError(f"unknown setting {', '.join(unknown)}; valid ones: {', '.join(kinds)}")
        for setting, value in settings.items():
            accepted = (int, float) if kinds[setting] is float else kinds[setting]
            if not isinstance(value, accepted) or isinstance(value, bool):
                raise ConfigError(f"{setting}={value!r} must be of type {kinds[setting].__name__}")
        return replace(self, **settings)
