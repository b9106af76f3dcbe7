"""A folder of results that is either complete or not there at all."""

import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import OutputError, UsageError

#: Lists the files of a folder that NPCSynth wrote, so that it may be replaced without touching anything else.
MANIFEST = "result.json"
#: The report on a result, in the same folder.
REPORT = "report.html"


@contextmanager
def new_folder(folder: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Gives a temporary folder to write into, which becomes ``folder`` when the block ends without an exception.

    It lies beside ``folder`` so that the last step is a rename on one file system. When anything goes wrong,
    Ctrl-C included, it is removed with all that is in it, and so are parent folders that were made for it.

    Args:
        folder: where the results shall be. It may exist when it is empty.
        overwrite: replace the results that an earlier run left in ``folder``; a folder that holds anything
            else is never touched.

    Raises:
        UsageError: the folder already holds something.
        OutputError: the folder cannot be made or written, or the disk is full.
    """
    folder = Path(folder).absolute()
    check_free(folder, overwrite)
    made: list[Path] = []
    temporary = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}.partial"
    try:
        try:
            _make_parents(folder.parent, made)
            temporary.mkdir()
        except OSError as error:
            raise OutputError(cannot_write(folder, error)) from error
        try:
            yield temporary
            _replace(temporary, folder)
        except OSError as error:
            raise OutputError(cannot_write(folder, error)) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        for parent in reversed(made):
            with suppress(OSError):
                parent.rmdir()
        raise


def check_free(folder: str | Path, overwrite: bool = False) -> None:
    """Raises what ``new_folder`` would raise, before any long computation has been done for nothing."""
    folder = Path(folder).absolute()
    if not folder.exists():
        existing = next(parent for parent in folder.parents if parent.exists())
        if not existing.is_dir():
            raise OutputError(f"{folder} cannot be made because {existing} is a file. Choose another output folder.")
        _try_to_write(existing)
        return
    if not folder.is_dir():
        raise OutputError(f"{folder} is a file, not a folder. Choose another output folder.")
    _try_to_write(folder.parent)  # where new_folder writes
    try:
        if not any(folder.iterdir()):
            return
        found, tops = contents(folder), {entry.name for entry in folder.iterdir()}
    except OSError as error:
        raise OutputError(cannot_write(folder, error)) from error
    if not overwrite:
        raise UsageError(
            f"{folder} already holds files, and they are never overwritten unasked. Choose a new folder, "
            "or replace earlier results (--overwrite)."
        )
    own = _own_files(folder)
    known = {name.split("/")[0] for name in own}
    # A folder that is listed by its own name was written before its files were.
    foreign = sorted([*(tops - known), *(name for name in found if not {name, name.split("/")[0]} & own)])
    if foreign:
        raise UsageError(
            f"{folder} holds files that NPCSynth did not write there (such as {foreign[0]}), so nothing in it is "
            "replaced. Choose another output folder."
        )


def _try_to_write(folder: Path) -> None:
    """Trying is the only test that holds for read-only disks, shares and privileged users alike."""
    trial = folder / f".{uuid.uuid4().hex[:8]}.partial"
    try:
        trial.mkdir()
        trial.rmdir()
    except OSError as error:
        raise OutputError(f"{folder} cannot be written to. Choose another output folder.") from error


def contents(folder: Path) -> list[str]:
    """Every file in a folder and the folders within, as "<folder>/<name>" below it; what ``MANIFEST`` lists."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")
                  if path.is_symlink() or not path.is_dir())


def _own_files(folder: Path) -> set[str]:
    try:
        return set(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _make_parents(parent: Path, made: list[Path]) -> None:
    for path in (*reversed(parent.parents), parent):
        if not path.exists():
            path.mkdir()
            made.append(path)


def _replace(temporary: Path, folder: Path) -> None:
    """Put ``temporary`` in the place of ``folder``; the old one comes back when that fails."""
    if not folder.exists():
        temporary.rename(folder)
        return
    old = temporary.with_suffix(".old")
    folder.rename(old)
    try:
        temporary.rename(folder)
    except BaseException:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def write_whole(path: Path, text: str) -> None:
    """Write a small file so that, whatever happens, it is the old one or the new one. Raises OutputError."""
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(draft, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise OutputError(cannot_write(path, error)) from error


def check_writable(folder: Path) -> None:
    """Raises OutputError when files could not be written into a folder, there already or not. Writes nothing."""
    folder = folder.absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    code = errno.ENOTDIR if not there.is_dir() else 0 if os.access(there, os.W_OK) else errno.EACCES
    if code:
        raise OutputError(cannot_write(folder, OSError(code, os.strerror(code))))


def cannot_write(folder: Path, error: OSError) -> str:
    """The sentence for a folder or file that cannot be written."""
    reason = error.strerror or "the write failed"
    return (
        f"{folder} could not be written: {reason}. Nothing partial was left. Choose another folder or free some space."
    )
