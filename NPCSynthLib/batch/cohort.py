"""The list of patients and how far it is, in a small file that survives a restart."""

import json
import os
import platform
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from itertools import count
from pathlib import Path

from .. import __version__
from ..errors import InputError, OutputError, UsageError
from ..output.folder import cannot_write, write_whole

#: What a batch's folder holds beside one folder for each patient.
STATE, CSV, PAGE, LOCK = "batch.json", "summary.csv", "summary.html", ".batch.lock"
#: Outcomes of a patient. RUNNING in the file of a batch that is not running: it was killed there.
WAITING, RUNNING, DONE, COMPLETE, FAILED = "waiting", "running", "done", "nothing missing", "failed"
_FORMAT = 1


@dataclass(frozen=True)
class Settings:
    """What is done for each patient; the same for all of a batch, restarts included.

    Attributes:
        targets: sequence ids to make where the patient lacks them, or None for every one that is known.
        reference: sequence whose grid the results take, or None for the best one of each patient.
        segment: propose contours too.
        report: write ``report.html`` for each patient.
        dicom, enhanced, deidentify: DICOM objects too, see ``output.write.write_result``.
        numbered: call patients by numbers, not by the names of their folders.
    """

    targets: tuple[str, ...] | None = None
    reference: str | None = None
    segment: bool = True
    report: bool = False
    dicom: bool = False
    enhanced: bool = False
    deidentify: bool = False
    numbered: bool = False


@dataclass(frozen=True)
class Patient:
    """One patient of a batch and what came of it.

    Attributes:
        name: of the folder of results; a number where patients are numbered.
        folder: absolute path of the images; may name the patient.
        outcome: WAITING, RUNNING, DONE, COMPLETE (nothing was missing, so nothing was made) or FAILED.
        error: the sentence why it failed, as a person saw it; may name a series or a folder.
        sources, made: sequence ids.
        mean_uncertainty: sequence id -> mean inside the body, 0..1000 being the body's intensities.
        warnings, unusual: sentences that name nobody.
        seconds: wall time.
        weights: SHA-256 of the weights.
    """

    name: str
    folder: str
    outcome: str = WAITING
    error: str = ""
    sources: tuple[str, ...] = ()
    made: tuple[str, ...] = ()
    mean_uncertainty: dict | None = None
    warnings: tuple[str, ...] = ()
    unusual: tuple[str, ...] = ()
    seconds: float = 0.0
    weights: str = ""

    @property
    def finished(self) -> bool:
        """Whether it is not done again."""
        return self.outcome in (DONE, COMPLETE)


class Cohort:
    """The patients of a batch, in order. Every change is on disk before the method returns; any thread may look.

    Args:
        out: the batch's folder, made when it is not there. One that holds a batch already is gone on with.
        settings: None takes those of the batch that is there, or the usual ones for a new one.

    Raises:
        UsageError: the folder holds something else, or a batch with other settings.
        InputError: its state file is damaged.
        OutputError: the folder cannot be written.
    """

    def __init__(self, out: str | Path, settings: Settings | None = None):
        self.out = Path(out).absolute()
        self._lock = threading.Lock()
        self._patients: tuple[Patient, ...] = ()
        self.settings = settings or Settings()
        if (self.out / STATE).exists():
            before = self._read()
            if settings is not None and before != settings:
                changed = ", ".join(f.name for f in fields(Settings) if getattr(before, f.name) !=
                                    getattr(settings, f.name))
                raise UsageError(f"The batch in {self.out} was begun with other settings ({changed}), and its results "
                                 "must stay comparable. Give the same ones, or another folder.")  # fmt: skip
            self.settings = before
        elif self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise UsageError(f"{self.out} is not empty and holds no batch. Choose a new folder.")

    @property
    def patients(self) -> tuple[Patient, ...]:
        """As they are now."""
        return self._patients

    def add(self, folders: Iterable[str | Path]) -> None:
        """Append patients by their folders; those that are on the list already stay as they are."""
        with self._changing():
            patients = list(self._patients)
            known = {patient.folder for patient in patients}
            for folder in folders:
                folder = Path(folder).absolute()
                if str(folder) not in known:
                    known.add(str(folder))
                    patients.append(Patient(self._free_name(folder, patients), str(folder)))
            self._write(patients)

    def remove(self, name: str) -> None:
        """Take a patient off the list. Results that were written stay. Raises UsageError while it is worked on."""
        with self._changing():
            at_work = any(patient.name == name and patient.outcome == RUNNING for patient in self._patients)
            if at_work and (self.out / LOCK).exists() and _lives(self.out / LOCK):
                raise UsageError(f"{name} is being worked on. Wait until it is done, or cancel the batch.")
            self._write([patient for patient in self._patients if patient.name != name])

    def update(self, name: str, **facts) -> Patient | None:
        """Set facts of a patient, see ``Patient``. None when somebody has taken it off the list meanwhile."""
        with self._changing():
            changed = {patient.name: patient for patient in self._patients}
            if name not in changed:
                return None
            changed[name] = replace(changed[name], **facts)
            self._write(list(changed.values()))
            return changed[name]

    def retry_failed(self) -> int:
        """Let failed patients wait again. Returns how many."""
        with self._changing():
            failed = [patient for patient in self._patients if patient.outcome == FAILED]
            self._write([Patient(p.name, p.folder) if p in failed else p for p in self._patients])
            return len(failed)

    def results(self, patient: Patient) -> Path:
        """Folder of a patient's results, whether it is there or not."""
        return self.out / patient.name

    @contextmanager
    def locked(self) -> Iterator[None]:
        """While it is run nobody else may run it. Raises UsageError when somebody does."""
        import psutil

        own = f"{platform.node()} {os.getpid()} {psutil.Process().create_time()}"
        path = self.out / LOCK
        for attempt in (1, 2):
            try:
                with open(path, "x", encoding="utf-8") as file:
                    file.write(own)
                break
            except FileExistsError:
                if attempt == 2 or _lives(path):
                    raise UsageError(
                        f"Another program is running the batch in {self.out}. Wait until it has ended. If there is "
                        f"none, delete {LOCK} in that folder."
                    ) from None
                path.unlink(missing_ok=True)
            except OSError as error:
                raise OutputError(cannot_write(self.out, error)) from error
        try:
            with self._changing():  # somebody may have run it since this object read it
                pass
            yield
        finally:
            path.unlink(missing_ok=True)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Change the list as it is on disk: another program may have gone on with it."""
        with self._lock:
            if (self.out / STATE).exists():
                self._read()
            yield

    def _free_name(self, folder: Path, patients: list[Patient]) -> str:
        """A name that nobody has; where results of somebody taken off the list lie, it is that patient's for ever."""
        taken = {patient.name.casefold() for patient in patients} | {STATE, CSV, PAGE}
        if self.settings.numbered:
            names = (f"patient-{n:03d}" for n in count(1))
        else:
            base = folder.name.lstrip(".") or "patient"
            names = (base if n == 1 else f"{base} ({n})" for n in count(1))
        return next(name for name in names if name.casefold() not in taken and not (self.out / name).exists())

    def _read(self) -> Settings:
        try:
            document = json.loads((self.out / STATE).read_text(encoding="utf-8"))
            if document["format"] != _FORMAT:
                raise ValueError("another format")
            self._patients = tuple(_from_json(Patient, entry) for entry in document["patients"])
            return _from_json(Settings, document["settings"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{STATE} in {self.out} is damaged or of another version of NPCSynth. Choose another "
                             "folder for the batch.") from error  # fmt: skip

    def _write(self, patients: list[Patient]) -> None:
        document = {
            "software": {"name": "NPCSynth", "version": __version__}, "format": _FORMAT,
            "settings": asdict(self.settings), "patients": [asdict(patient) for patient in patients],
        }  # fmt: skip
        write_whole(self.out / STATE, json.dumps(document, indent=1) + "\n")
        self._patients = tuple(patients)


def patient_folders(cohort: str | Path, out: str | Path | None = None) -> list[Path]:
    """The folders in a folder, one for each patient, by name; hidden ones and the batch's own left out.

    Raises InputError when there is none.
    """
    cohort = Path(cohort)
    if not cohort.is_dir():
        raise InputError(f"{cohort} is not a folder. Give the folder that holds one folder for each patient.")
    own = None if out is None else Path(out).resolve()
    found = [path for path in sorted(cohort.iterdir())
             if path.is_dir() and not path.name.startswith(".") and path.resolve() != own]  # fmt: skip
    if not found:
        raise InputError(f"{cohort} holds no folders. Give the folder that holds one folder for each patient; for a "
                         "single patient use npcsynth synthesize.")  # fmt: skip
    return found


def _from_json(kind, entry: dict):
    plain = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
    return kind(**plain)


def _lives(lock: Path) -> bool:
    """Whether the program that made this lock may still run."""
    import psutil

    try:
        computer, pid, created = lock.read_text(encoding="utf-8").rsplit(" ", 2)
        if computer != platform.node():
            return True
        return abs(psutil.Process(int(pid)).create_time() - float(created)) < 1
    except psutil.NoSuchProcess:
        return False
    except (OSError, ValueError, psutil.Error):
        return True
