"""Several patients: one bad one never stops the rest, a killed batch goes on where it was, nothing half is left."""

import csv
import gc
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from page_reader import Page
from typer.testing import CliRunner

from NPCSynthLib.batch import Cohort, Settings, patient_folders, run_cohort
from NPCSynthLib.batch.cohort import LOCK, STATE
from NPCSynthLib.batch.summary import COLUMNS
from NPCSynthLib.cli.main import app
from NPCSynthLib.errors import Cancelled, InputError, OutputError, UsageError, WeightsError
from NPCSynthLib.inference.job import InProcess
from NPCSynthLib.inference.result import SynthesisResult, SynthesizedSequence
from NPCSynthLib.model.manifest import MODEL, network_sha256, read_manifest, write_manifest

ROOT = Path(__file__).resolve().parents[1]
QUICK = Settings(segment=False, targets=("T1C", "FLAIR"))


class MeanOfSources:
    """Synthesizer without a network: each target is the mean of the sources. Fails on demand."""

    def __init__(self, before=lambda study: None):
        self.before, self.runs = before, []

    def __call__(self, weights, device):
        return self

    def check(self, study, targets, segment=True, prompts=None):
        """As Synthesizer.check; nothing to note."""
        return []

    def run(self, study, targets, segment=True, prompts=None, on_progress=None, cancel=None):
        """As Synthesizer.run."""
        self.runs.append(tuple(targets))
        self.before(study)
        array = (1000 * np.mean([s.array for s in study.sources], axis=0)).astype(np.int16)
        made = tuple(SynthesizedSequence(t, array, np.full_like(array, 40 + n), "prompt", 40.0 + n)
                     for n, t in enumerate(targets))
        return SynthesisResult(study.grid, made, None, tuple(s.sequence for s in study.sources),
                               {"name": "mean", "version": "0", "sha256": network_sha256()}, "CPU", {"synthesis": 0.1},
                               ("To be checked.",))


def write_patient(folder: Path, sequences=("T1", "T2")) -> Path:
    """Tilted, anisotropic, flipped images of a ball, as NIfTI."""
    folder.mkdir(parents=True)
    shape = (10, 20, 18)
    k, j, i = np.ogrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j, -1 : 1 : shape[2] * 1j]
    inside = k**2 + j**2 + i**2 < 0.8
    for n, sequence in enumerate(sequences):
        rng = np.random.default_rng(n)
        image = sitk.GetImageFromArray((inside * rng.uniform(200, 900, shape)).astype(np.int16))
        image.SetSpacing((1.1, 0.9, 4.0))
        image.SetOrigin((20.0, -7.5, 100.0))
        image.SetDirection((0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, -1))
        sitk.WriteImage(image, str(folder / f"{sequence}.nii.gz"))
    return folder


@pytest.fixture
def cohort_folder(tmp_path):
    folder = tmp_path / "cohort"
    for name in ("anna", "bert", "carl"):
        write_patient(folder / name)
    return folder


def run(cohort, synthesizer=None, **options):
    synthesizer = synthesizer or MeanOfSources()
    run_cohort(cohort, InProcess(synthesizer), scene=False, **options)
    return synthesizer


def outcomes(cohort):
    return {patient.name: patient.outcome for patient in cohort.patients}


def names(folder):
    return {path.name for path in folder.iterdir()}


def table(out):
    with open(out / "summary.csv", newline="", encoding="utf-8") as file:
        return {row["patient"]: row for row in csv.DictReader(file)}


def test_every_patient_gets_results_and_a_line_in_the_summary(cohort_folder, tmp_path):
    cohort = Cohort(tmp_path / "out", QUICK)
    cohort.add(patient_folders(cohort_folder))
    run(cohort)
    assert outcomes(cohort) == {"anna": "done", "bert": "done", "carl": "done"}
    assert names(tmp_path / "out") == {"anna", "bert", "carl", STATE, "summary.csv", "summary.html"}
    assert names(tmp_path / "out" / "anna") == {
        "T1C_synthetic.nii.gz", "T1C_synthetic_uncertainty.nii.gz", "FLAIR_synthetic.nii.gz",
        "FLAIR_synthetic_uncertainty.nii.gz", "result.json"}
    row = table(tmp_path / "out")["bert"]
    assert list(row) == list(COLUMNS)
    assert (row["sources"], row["made"], row["mean_uncertainty"]) == ("T1 T2", "T1C FLAIR", "T1C 40 FLAIR 41")
    assert "To be checked." in row["warnings"] and float(row["seconds"]) >= 0
    assert row["weights"] == network_sha256()[:12]
    page = Page((tmp_path / "out" / "summary.html").read_text(encoding="utf-8"))
    assert "3 patients: 3 done" in page.text and [line[0] for line in page.tables[0][1:]] == ["anna", "bert", "carl"]


def test_bad_patients_never_stop_the_rest(cohort_folder, tmp_path):
    (cohort_folder / "empty").mkdir()
    (cohort_folder / "damaged").mkdir()
    (cohort_folder / "damaged" / "IM0001.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 300)
    (cohort_folder / "aa vanishes").mkdir()
    cohort = Cohort(tmp_path / "out", QUICK)
    cohort.add(patient_folders(cohort_folder))
    (cohort_folder / "aa vanishes").rmdir()
    told = []
    run(cohort, on_patient=lambda patient, error: told.append((patient.name, type(error).__name__)))
    assert outcomes(cohort) == {"aa vanishes": "failed", "anna": "done", "bert": "done", "carl": "done",
                                "damaged": "failed", "empty": "failed"}
    errors = {patient.name: patient.error for patient in cohort.patients}
    assert "no longer there" in errors["aa vanishes"] and "empty" in errors["empty"]
    assert "damaged" in errors["damaged"].lower()
    assert dict(told)["empty"] == "InputError" and dict(told)["anna"] == "NoneType"
    assert not {"empty", "damaged", "aa vanishes"} & names(tmp_path / "out")
    assert table(tmp_path / "out")["empty"]["error"] == errors["empty"]


@pytest.mark.parametrize("failure, told", [
    (ValueError("secret Doe"), "ValueError"), (MemoryError(), "memory was too small"),
    (OSError(28, "No space left on device"), "No space left"),
])
def test_whatever_goes_wrong_is_one_sentence(cohort_folder, tmp_path, failure, told):
    cohort = Cohort(tmp_path / "out", QUICK)
    cohort.add(patient_folders(cohort_folder))
    failing = iter([True, False, False])

    def before(study):
        if next(failing):
            raise failure

    run(cohort, MeanOfSources(before))
    assert outcomes(cohort) == {"anna": "failed", "bert": "done", "carl": "done"}
    assert told in cohort.patients[0].error and "secret" not in (tmp_path / "out" / STATE).read_text()


def test_a_full_disk_leaves_nothing_half_and_the_batch_goes_on_later(cohort_folder, tmp_path):
    resource = pytest.importorskip("resource", reason="this system cannot limit the size of files")
    cohort = Cohort(tmp_path / "out", QUICK)
    cohort.add(patient_folders(cohort_folder))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, hard))
    try:
        run(cohort)
    except OutputError:
        pass  # not even the list fits
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not {"anna", "bert", "carl"} & names(tmp_path / "out")
    assert not list((tmp_path / "out").glob(".*"))
    cohort = Cohort(tmp_path / "out")
    cohort.retry_failed()
    run(cohort)
    assert set(outcomes(cohort).values()) == {"done"}


def test_finished_patients_are_not_done_again_and_failed_ones_only_when_asked(cohort_folder, tmp_path):
    (cohort_folder / "empty").mkdir()
    cohort = Cohort(tmp_path / "out", QUICK)
    cohort.add(patient_folders(cohort_folder))
    assert len(run(cohort).runs) == 3
    again = Cohort(tmp_path / "out")
    again.add(patient_folders(cohort_folder))  # nobody is on the list twice
    assert len(again.patients) == 4 and run(again).runs == []
    shutil.rmtree(cohort_folder / "empty")
    write_patient(cohort_folder / "empty")
    assert run(again).runs == []
    assert again.retry_failed() == 1
    assert len(run(again).runs) == 1 and outcomes(again)["empty"] == "done"


def test_new_patients_join_a_batch(cohort_folder, tmp_path):
    cohort = Cohort(tmp_path / "out", QUICK)
    cohort.add([cohort_folder / "anna"])
    run(cohort)
    cohort = Cohort(tmp_path / "out")
    cohort.add(patient_folders(cohort_folder))
    assert len(run(cohort).runs) == 2 and set(outcomes(cohort).values()) == {"done"}


def test_what_another_program_has_finished_meanwhile_stays_finished(cohort_folder, tmp_path):
    """As when a batch is open in Slicer while the command line goes on with it."""
    open_for_hours = Cohort(tmp_path / "out", QUICK)
    open_for_hours.add([cohort_folder / "anna", cohort_folder / "bert"])
    run(Cohort(tmp_path / "out"))
    finished = (tmp_path / "out" / "batch.json").read_text()
    assert run(open_for_hours).runs == [] and set(outcomes(open_for_hours).values()) == {"done"}
    assert (tmp_path / "out" / "batch.json").read_text() == finished
    other = Cohort(tmp_path / "out")
    open_for_hours.add([cohort_folder / "carl"])
    other.remove("anna")
    assert set(outcomes(Cohort(tmp_path / "out"))) == {"bert", "carl"}


def test_who_another_program_takes_off_the_list_meanwhile_is_passed_over(cohort_folder, tmp_path):
    cohort = Cohort(tmp_path / "out", QUICK)
    cohort.add(patient_folders(cohort_folder))
    said = []

    def meanwhile(_fraction, stage):
        if not said:
            other = Cohort(tmp_path / "out")
            other.remove("bert")
            with pytest.raises(UsageError, match="anna is being worked on"):
                other.remove("anna")
            said.append(stage)

    run(cohort, on_progress=meanwhile)
    assert said and outcomes(cohort) == {"anna": "done", "carl": "done"}


def test_a_patient_who_lacks_nothing_is_no_failure(tmp_path):
    cohort = Cohort(tmp_path / "out", QUICK)
    has_all = write_patient(tmp_path / "all", ("T1", "T1C", "FLAIR"))
    cohort.add([has_all, write_patient(tmp_path / "some", ("T1", "T1C"))])
    assert run(cohort).runs == [("FLAIR",)]
    assert outcomes(cohort) == {"all": "nothing missing", "some": "done"}


def test_of_a_patient_who_lacks_nothing_remarks_are_kept(tmp_path):
    """A series that was taken for another sequence must not close the case in silence; nor names come with it."""
    cohort = Cohort(tmp_path / "out", Settings(**{**vars(QUICK), "targets": ("T1",), "segment": True}))
    folder = write_patient(tmp_path / "all", ("T1", "T1C"))
    (folder / "Doe_Jane.nii.gz").write_bytes(b"no image")
    shutil.copy(folder / "T1.nii.gz", folder / "Doe_t1.nii.gz")
    cohort.add([folder])
    run(cohort)
    patient, = cohort.patients
    assert patient.outcome == "nothing missing"
    told = " ".join(patient.warnings)
    assert "both look like T1" in told and "damaged" in told and "No contours were made" in told
    assert "Doe" not in told
    assert "No contours were made" in (tmp_path / "out" / "summary.html").read_text()


@pytest.mark.parametrize("numbered", [False, True])
def test_nobody_takes_the_name_of_results_that_are_there(tmp_path, numbered):
    """Or the report of a patient who was taken off the list would open under another's name."""
    cohort = Cohort(tmp_path / "out", Settings(**{**vars(QUICK), "numbered": numbered}))
    cohort.add([write_patient(tmp_path / "a" / "mr")])
    run(cohort)
    first, = cohort.patients
    cohort.remove(first.name)
    cohort.add([write_patient(tmp_path / "b" / "mr")])
    second, = cohort.patients
    assert second.name == ("patient-002" if numbered else "mr (2)")
    run(cohort)
    assert outcomes(cohort) == {second.name: "done"}


def test_pause_ends_after_the_patient_at_hand_and_a_restart_goes_on(cohort_folder, tmp_path):
    cohort = Cohort(tmp_path / "out", QUICK)
    cohort.add(patient_folders(cohort_folder))
    synthesizer = MeanOfSources()
    run(cohort, synthesizer, pause=lambda: len(synthesizer.runs) == 1)
    assert outcomes(cohort) == {"anna": "done", "bert": "waiting", "carl": "waiting"}
    assert table(tmp_path / "out")["bert"]["outcome"] == "waiting"
    assert len(run(Cohort(tmp_path / "out")).runs) == 2


@pytest.mark.parametrize("stop", [KeyboardInterrupt, Cancelled])
def test_cancel_lets_the_patient_at_hand_wait_again(cohort_folder, tmp_path, stop):
    cohort = Cohort(tmp_path / "out", QUICK)
    cohort.add(patient_folders(cohort_folder))

    def before(study):
        raise stop()

    with pytest.raises(stop):
        run(cohort, MeanOfSources(before))
    assert set(outcomes(Cohort(tmp_path / "out")).values()) == {"waiting"}
    assert names(tmp_path / "out") == {STATE}


def test_without_targets_what_the_weights_can_make_is_made(cohort_folder, tmp_path, few_sequences):
    """The weights of the run, or else those of the computer, as for the computation."""
    for number, (computer, options) in enumerate((({}, {"weights": few_sequences}), ({"weights": few_sequences}, {}))):
        cohort, synthesizer = Cohort(tmp_path / f"out{number}", Settings(segment=False)), MeanOfSources()
        cohort.add([cohort_folder / "anna"])
        run_cohort(cohort, InProcess(synthesizer, **computer), scene=False, **options)
        assert synthesizer.runs == [("T1C",)]


def test_without_targets_and_weights_a_batch_does_not_begin(cohort_folder, tmp_path):
    cohort = Cohort(tmp_path / "out", Settings(segment=False))
    cohort.add(patient_folders(cohort_folder))
    with pytest.raises(WeightsError, match="manifest.json is missing"):
        run(cohort, weights=tmp_path / "nowhere")
    assert set(outcomes(cohort).values()) == {"waiting"}


def test_a_batch_killed_mid_patient_goes_on_there(cohort_folder, tmp_path):
    """A real process, killed while it writes the second patient; what it left half is gone after the restart."""
    out = tmp_path / "out"
    script = f"""
import sys, time
sys.path.insert(0, {str(ROOT / "Testing")!r})
from test_batch import MeanOfSources, QUICK, InProcess
from NPCSynthLib.batch import Cohort, patient_folders, run_cohort
import NPCSynthLib.batch.run as room
from NPCSynthLib.output import write

def slow(result, study, folder, *rest):
    if "bert" in folder.name:
        (folder / "T1C_synthetic.nii.gz").write_bytes(b"half")
        print("half written", flush=True)
        time.sleep(100)
    return whole(result, study, folder, *rest)

whole, write.write_files = write.write_files, slow
cohort = Cohort({str(out)!r}, QUICK)
cohort.add(patient_folders({str(cohort_folder)!r}))
run_cohort(cohort, InProcess(MeanOfSources()), scene=False)
"""
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "half written\n"
    with pytest.raises(UsageError, match="Another program"):
        run(Cohort(out))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert list(out.glob(".bert.*.partial")) and (out / LOCK).exists()
    (out / f".{STATE}.01234567.partial").write_text("half")
    before = (out / "anna" / "result.json").stat().st_mtime_ns
    cohort = Cohort(out)
    assert outcomes(cohort) == {"anna": "done", "bert": "running", "carl": "waiting"}
    assert len(run(cohort).runs) == 2
    assert set(outcomes(cohort).values()) == {"done"}
    assert (out / "anna" / "result.json").stat().st_mtime_ns == before
    assert names(out) == {"anna", "bert", "carl", STATE, "summary.csv", "summary.html"}


def test_killed_between_result_and_list_the_result_counts(cohort_folder, tmp_path):
    cohort = Cohort(tmp_path / "out", QUICK)
    cohort.add(patient_folders(cohort_folder))
    run(cohort)
    cohort.update("bert", outcome="running", made=(), error="")
    assert run(Cohort(tmp_path / "out")).runs == []
    bert = Cohort(tmp_path / "out").patients[1]
    assert bert.outcome == "done" and bert.made == ("T1C", "FLAIR")


def test_other_settings_are_refused(cohort_folder, tmp_path):
    Cohort(tmp_path / "out", QUICK).add(patient_folders(cohort_folder))
    with pytest.raises(UsageError, match="segment"):
        Cohort(tmp_path / "out", Settings(segment=True, targets=("T1C", "FLAIR")))
    assert Cohort(tmp_path / "out").settings == QUICK


def test_other_weights_do_not_go_on_with_a_batch(cohort_folder, tmp_path):
    """Two networks in one summary could not be compared."""
    _, manifest = read_manifest()
    manifest["files"][MODEL]["sha256"] = "ab" * 32
    (tmp_path / "other").mkdir()
    write_manifest(tmp_path / "other", manifest)
    cohort = Cohort(tmp_path / "out", QUICK)
    cohort.add([cohort_folder / "anna"])
    run(cohort)
    cohort.add([cohort_folder / "bert"])
    with pytest.raises(UsageError, match="other weights"):
        run(cohort, weights=tmp_path / "other")
    assert outcomes(cohort) == {"anna": "done", "bert": "waiting"}
    run(cohort)
    assert outcomes(cohort) == {"anna": "done", "bert": "done"}


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds no batch"):
        Cohort(tmp_path)
    (tmp_path / "notes.txt").unlink()
    (tmp_path / STATE).write_text("{")
    with pytest.raises(InputError, match="damaged"):
        Cohort(tmp_path)


def test_folders_of_one_name_are_kept_apart(tmp_path):
    cohort = Cohort(tmp_path / "out", QUICK)
    cohort.add([write_patient(tmp_path / "a" / "mr"), write_patient(tmp_path / "b" / "MR")])
    run(cohort)
    assert outcomes(cohort) == {"mr": "done", "MR (2)": "done"}


def test_numbered_patients_are_named_nowhere_but_in_the_key(tmp_path):
    cohort = Cohort(tmp_path / "out", Settings(**{**vars(QUICK), "numbered": True, "report": True}))
    (tmp_path / "Muster_Klara").mkdir()
    cohort.add([write_patient(tmp_path / "Doe_Jane"), tmp_path / "Muster_Klara"])
    stages = []
    run(cohort, on_progress=lambda fraction, stage: stages.append((fraction, stage)))
    assert outcomes(cohort) == {"patient-001": "done", "patient-002": "failed"}
    for name in ("summary.csv", "summary.html", "patient-001/report.html"):
        content = re.sub("base64,[^']*", "", (tmp_path / "out" / name).read_text(encoding="utf-8"))
        assert "Doe" not in content and "Muster" not in content and "Klara" not in content
    assert table(tmp_path / "out")["patient-002"]["error"] == "The folder …_… is empty."
    assert "Doe_Jane" in (tmp_path / "out" / STATE).read_text()
    assert not any("Doe" in stage for _, stage in stages)
    fractions = [fraction for fraction, _ in stages]
    assert fractions == sorted(fractions) and 0 <= fractions[0] and fractions[-1] <= 1
    assert "<a href='patient-001/report.html'>" in (tmp_path / "out" / "summary.html").read_text()


def test_memory_does_not_grow_with_the_patients(cohort_folder, tmp_path):
    """No study outlives its patient."""
    cohort = Cohort(tmp_path / "out", QUICK)
    cohort.add(patient_folders(cohort_folder))
    studies, alive = [], []

    def before(study):
        gc.collect()
        alive.append(sum(one() is not None for one in studies))
        studies.append(weakref.ref(study.body))
        if len(studies) == 2:
            raise ValueError("errors hold on to nothing either")

    run(cohort, MeanOfSources(before))
    assert alive == [0, 0, 0]


def test_the_state_file_is_never_half(cohort_folder, tmp_path, monkeypatch):
    cohort = Cohort(tmp_path / "out", QUICK)
    cohort.add(patient_folders(cohort_folder))
    before = (tmp_path / "out" / STATE).read_text()

    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match="could not be written"):
        cohort.update("anna", outcome="failed")
    assert (tmp_path / "out" / STATE).read_text() == before and names(tmp_path / "out") == {STATE}
    assert cohort.patients[0].outcome == "waiting"


def test_the_list_is_there_before_slicer_has_installed_anything(cohort_folder, tmp_path):
    """The panel shows the list when it opens; packages are installed when a run begins."""
    lacking = ("torch", "psutil", "slicerio", "matplotlib", "skimage", "monai", "safetensors")
    script = f"""
import sys
for name in {lacking!r}:
    sys.modules[name] = None
from NPCSynthLib.batch import Cohort, patient_folders, run_cohort
from NPCSynthLib.batch.summary import counts
cohort = Cohort({str(tmp_path / "out")!r})
cohort.add(patient_folders({str(cohort_folder)!r}))
print(counts(cohort.patients))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "{'waiting': 3}\n", done.stderr


def npcsynth(*arguments):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def quick_weights(monkeypatch):
    """The command's own steps with a synthesizer that costs nothing."""
    synthesizer = MeanOfSources()
    monkeypatch.setattr("NPCSynthLib.inference.synthesizer.Synthesizer", lambda weights, device: synthesizer)
    return synthesizer


def test_the_command_tells_outcomes_and_goes_on(cohort_folder, tmp_path, quick_weights, few_sequences):
    (cohort_folder / "empty").mkdir()
    options = ("batch", cohort_folder, "--out", tmp_path / "out", "--no-segment", "--weights", few_sequences)
    code, out, said = npcsynth(*options, "--json")
    assert code == 5 and "1 of 4 patients failed" in said and "--retry" in said
    document = json.loads(out)
    assert document["outcomes"] == {"done": 3, "failed": 1}
    assert document["patients"][0]["made"] == ["T1C"] and quick_weights.runs == [("T1C",)] * 3
    shutil.rmtree(cohort_folder / "empty")
    write_patient(cohort_folder / "empty")
    code, out, said = npcsynth(*options, "--retry")
    assert code == 0 and len(quick_weights.runs) == 4 and "4 patients in" in said and ": 4 done." in said and out == ""


def test_the_command_with_a_real_network(cohort_folder, tmp_path):
    pytest.importorskip("open_clip", reason="writing weights needs open_clip_torch")
    from tiny_weights import write_tiny_weights

    weights = write_tiny_weights(tmp_path / "weights", ("T1", "T2", "T1C"))
    options = ("batch", cohort_folder, "--out", tmp_path / "out", "--weights", weights, "--device", "cpu", "--report")
    code, _, said = npcsynth(*options)
    assert code == 0, said
    row = table(tmp_path / "out")["carl"]
    assert (row["outcome"], row["made"]) == ("done", "T1C")
    document = json.loads((tmp_path / "out" / "carl" / "result.json").read_text())
    assert document["weights"]["name"] == "tiny" and row["weights"] == document["weights"]["sha256"][:12]
    written = names(tmp_path / "out" / "carl")
    assert {"T1C_synthetic.nii.gz", "segmentation_synthetic.seg.nrrd", "report.html"} <= written


def test_ctrl_c_says_that_the_same_command_goes_on(cohort_folder, tmp_path, quick_weights):
    def before(study):
        if len(quick_weights.runs) == 2:
            raise KeyboardInterrupt

    quick_weights.before = before
    options = ("batch", cohort_folder, "--out", tmp_path / "out", "--no-segment")
    code, _, said = npcsynth(*options)
    assert code == 4 and "1 of 3 patients are finished" in said and "the same command" in said
    code, _, said = npcsynth(*options)
    assert code == 0 and len(quick_weights.runs) == 4


def test_a_cohort_without_folders_is_refused(tmp_path, quick_weights):
    code, _, said = npcsynth("batch", tmp_path, "--out", tmp_path / "out")
    assert code == 3 and "one folder for each patient" in said and not (tmp_path / "out").exists()


def test_the_batchs_own_folder_is_no_patient(cohort_folder, tmp_path, quick_weights):
    options = ("batch", cohort_folder, "--out", cohort_folder / "results", "--no-segment")
    assert npcsynth(*options)[0] == 0
    code, _, said = npcsynth(*options)
    assert code == 0 and "3 patients in" in said
    assert names(cohort_folder) == {"anna", "bert", "carl", "results"}
