"""Checkpoints that are complete or absent, whenever the process is killed.

A checkpoint is written beside its final name, every file flushed to disk, a completion mark added
that lists the files with their sizes, and the folder renamed. A folder without its mark, or with a
file missing or cut short, is never resumed from or served.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llmtune.config import environment
from llmtune.errors import CheckpointError, OutputError
from llmtune.train import ranks
from llmtune.train.checkpoint_files import TEMPLATE

MARK = "complete.json"
STAGING = ".unfinished-"
_ADAPTER = "adapter_config.json"
"""What peft and SWIFT write beside the weights of an adapter."""
_REWRITTEN = ("generation_config.json",)
"""Files that commands may change in a complete checkpoint (`infer --overwrite_generation_config`)."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_SPARE = 1 << 20


@contextmanager
def writing(final: Path) -> Iterator[Path]:
    """Yield a folder to write into; on success it becomes `final`, on any error it disappears."""
    staged = _staged(final)
    shutil.rmtree(staged, ignore_errors=True)
    try:
        with _naming_a_full_disk(final):
            staged.mkdir(parents=True)
            yield staged
            seal(staged)
            _replace(staged, final)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise


@contextmanager
def writing_together(final: Path, *, on_each_machine: bool = False) -> Iterator[Path]:
    """Like `writing`, called by all ranks of a run: each may write files of its own into the one folder.

    It becomes `final` when every rank has left the block. With `on_each_machine` the first rank of each
    machine makes the folder there, unless the machines share their file system.
    """
    if ranks.is_first():
        with writing(final) as staged:
            ranks.wait()  # the folder is there
            ranks.wait()  # and on the other machines
            yield staged
            ranks.wait()  # everybody has written
    else:
        ranks.wait()
        own = on_each_machine and environment.local_rank() == 0 and not _staged(final).exists()
        with writing(final) if own else _another_ranks(final) as staged:
            ranks.wait()
            yield staged
            ranks.wait()
    ranks.wait()  # it is complete


@contextmanager
def _another_ranks(final: Path) -> Iterator[Path]:
    with _naming_a_full_disk(final):
        yield _staged(final)


def _staged(final: Path) -> Path:
    return final.parent / f"{STAGING}{final.name}"


@contextmanager
def _naming_a_full_disk(final: Path) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        if not _disk_is_full(final.parent, error):
            raise
        raise OutputError(
            f"no space left for {final}: {error}",
            fix=f"free some space; last complete checkpoint: {newest(final.parent) or 'none'}",
        ) from error


def _disk_is_full(folder: Path, error: BaseException) -> bool:
    """safetensors raises its own class, with the number in Rust's words alone; the free space is looked at as well."""
    named = re.search(r"\(os error (\d+)\)", str(error))
    number = error.errno if isinstance(error, OSError) else int(named[1]) if named else None
    if number in _FULL:
        return True
    return isinstance(error, Exception) and shutil.disk_usage(folder).free < _SPARE


def seal(folder: Path) -> None:
    """Flush what lies in a folder and add the completion mark; what is added later is not listed in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files:
        _flush(path)
    sizes = {str(path.relative_to(folder)): path.stat().st_size for path in files if path.name not in _REWRITTEN}
    mark = folder / MARK
    mark.write_text(json.dumps({"files": sizes}, indent=1), encoding="utf-8")
    _flush(mark)
    _flush(folder)


def _replace(staged: Path, final: Path) -> None:
    if final.exists():
        remove(final)
    staged.rename(final)
    _flush(final.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(folder: Path) -> None:
    """Delete a checkpoint so that a kill in the middle leaves nothing under its name."""
    doomed = folder.with_name(f"{STAGING}deleted-{folder.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed)


def clean(run_folder: Path) -> None:
    """Remove what a killed process left half written."""
    for path in run_folder.glob(f"{STAGING}*"):
        shutil.rmtree(path, ignore_errors=True)


def problem(folder: Path) -> str:
    """Return why `folder` is not a complete checkpoint, or an empty string."""
    try:
        files: dict[str, int] = json.loads((folder / MARK).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"it has no completion mark ({MARK})"
    for name, size in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes, {size} were written"
    return ""


def check_complete(folder: Path) -> None:
    """Raise `CheckpointError` unless `folder` is a complete checkpoint."""
    if not folder.is_dir():
        raise CheckpointError(f"checkpoint {folder} does not exist", fix=f"check the path; {_others(folder.parent)}")
    reason = problem(folder)
    if not reason:
        return
    inside = complete_checkpoints(folder)
    if inside:
        raise CheckpointError(f"{folder} is a run folder, not a checkpoint", fix=f"use {inside[-1]}")
    raise CheckpointError(f"checkpoint {folder} is incomplete: {reason}", fix=_others(folder.parent))


def check_free(folder: Path) -> None:
    """Raise `CheckpointError` where a new run would mix its checkpoints with those of another."""
    found = complete_checkpoints(folder) if folder.is_dir() else []
    if found:
        raise CheckpointError(
            f"--output_dir {folder} holds checkpoints of another run: {', '.join(path.name for path in found)}",
            fix=f"--resume_from_checkpoint {found[-1]} goes on with it; another --output_dir, or leaving out "
            "--add_output_dir_suffix false, keeps it",
        )


def check_readable(folder: Path) -> None:
    """Like `check_complete`, but say a line and go on where another program wrote an adapter."""
    if is_foreign(folder):
        note = f"note: llmtune did not write {folder}, and cannot tell whether its files are complete"
        print(note, file=sys.stderr)
    else:
        check_complete(folder)


def is_foreign(folder: Path) -> bool:
    """Whether another program wrote the adapter in `folder`: peft, or SWIFT in its own form.

    A checkpoint of llmtune's that has lost its completion mark has its template still, and is none.
    """
    if folder.name.startswith(STAGING) or (folder / MARK).exists() or (folder / TEMPLATE).exists():
        return False
    return (folder / _ADAPTER).is_file() or any(map(_is_in_swift_form, folder.glob(f"*/{_ADAPTER}")))


def _is_in_swift_form(path: Path) -> bool:
    """SWIFT's own form has a folder for each adapter; so has a run, but of checkpoints in peft's form."""
    return '"swift_type"' in path.read_text(encoding="utf-8", errors="replace")


def _others(run_folder: Path) -> str:
    found = complete_checkpoints(run_folder) if run_folder.is_dir() else []
    return f"complete ones there: {', '.join(map(str, found))}" if found else "no complete checkpoint was found there"


def step_of(folder: Path) -> int:
    match = re.fullmatch(r"checkpoint-(\d+)", folder.name)
    return int(match.group(1)) if match else -1


def complete_checkpoints(run_folder: Path) -> list[Path]:
    """Return the complete checkpoints of a run, by step."""
    return sorted(
        (path for path in run_folder.glob("checkpoint-*") if step_of(path) >= 0 and not problem(path)), key=step_of
    )


def newest(run_folder: Path) -> Path | None:
    found = complete_checkpoints(run_folder)
    return found[-1] if found else None


def prune(run_folder: Path, limit: int, best: Path | None) -> None:
    """Keep at most `limit` checkpoints: the newest, then the best, then the next newest; -1 keeps all."""
    found = complete_checkpoints(run_folder)
    if limit < 0 or not found:
        return
    first = [found[-1], *(path for path in found[:-1] if path == best)]
    ranked = first + [path for path in reversed(found) if path not in first]
    for path in ranked[max(limit, 1) :]:
        remove(path)
