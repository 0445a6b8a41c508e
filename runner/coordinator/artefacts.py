"""The folder of checkpoints: one folder a task, written by executors, cleaned by the coordinator."""

from __future__ import annotations

import contextlib
import os
import shutil


class Artefacts:
    """Removes files. Ids and paths come from peers: nothing outside the folder is touched."""

    def __init__(self, path: str) -> None:
        self._path = path

    def drop(self, uri: str) -> None:
        """Remove one checkpoint."""
        path = os.path.normpath(uri)
        if path.startswith(self._path + os.sep):
            with contextlib.suppress(OSError):
                os.unlink(path)

    def sweep(self, task_id: str, kept_uri: str) -> None:
        """Remove all that a task has saved but `kept_uri`, and its folder if nothing is left in it."""
        folder = self._folder(task_id)
        kept = os.path.normpath(kept_uri) if kept_uri else ""
        with contextlib.suppress(OSError):
            for entry in os.scandir(folder):
                if entry.path != kept:
                    with contextlib.suppress(OSError):
                        os.unlink(entry.path)
            if not kept:
                os.rmdir(folder)

    def forget(self, task_id: str) -> None:
        """Remove everything of a task; most have nothing."""
        folder = self._folder(task_id)
        if os.path.isdir(folder):
            shutil.rmtree(folder, ignore_errors=True)

    def _folder(self, task_id: str) -> str:
        is_name = task_id not in ("", os.curdir, os.pardir) and os.sep not in task_id and "\0" not in task_id
        return os.path.join(self._path, task_id) if is_name else os.devnull
