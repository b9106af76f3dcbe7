"""Through a real archive: Orthanc on this computer takes what was written and gives the same back."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_cases import dicom_files, make_result, read_study, write_study

from NPCSynthLib.output.dicom_export import export_dicom
from NPCSynthLib.output.provenance import provenance

ORTHANC = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin")
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")

pytestmark = [
    pytest.mark.skipif(ORTHANC is None, reason="Orthanc (Debian package orthanc) is not installed"),
    pytest.mark.skipif(not PLUGIN.exists(), reason="the Debian package orthanc-dicomweb is not installed"),
    pytest.mark.skipif(shutil.which("storescu") is None, reason="storescu (Debian package dcmtk) is not installed"),
]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Archive:
    """An empty Orthanc that listens on this computer alone."""

    def __init__(self, folder: Path):
        self.dicom_port, self.http_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.http_port}"
        settings = {
            "Name": "Test", "StorageDirectory": str(folder / "storage"), "IndexDirectory": str(folder / "storage"),
            "DicomPort": self.dicom_port, "HttpPort": self.http_port, "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False, "DicomAlwaysAllowStore": True, "DicomCheckCalledAet": False,
            "Plugins": [str(PLUGIN)], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }  # fmt: skip
        configuration = folder / "orthanc.json"
        configuration.write_text(json.dumps(settings))
        self._log = (folder / "orthanc.log").open("w")
        # A process group of its own, ended as a whole; and by itself should these tests be killed before they do so.
        self._process = subprocess.Popen(["timeout", "300", ORTHANC, str(configuration)], cwd=folder,
                                         stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True)
        deadline = time.monotonic() + 30
        while True:
            try:
                self.get("system")
                return
            except (urllib.error.URLError, ConnectionError):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    pytest.fail("Orthanc did not start: " + (folder / "orthanc.log").read_text()[-2000:])
                time.sleep(0.1)

    def get(self, path: str):
        with urllib.request.urlopen(f"{self.url}/{path}", timeout=20) as answer:
            return json.load(answer)

    def file(self, identifier: str) -> pydicom.Dataset:
        with urllib.request.urlopen(f"{self.url}/instances/{identifier}/file", timeout=20) as answer:
            return pydicom.dcmread(BytesIO(answer.read()))

    def clear(self) -> None:
        for patient in self.get("patients"):
            urllib.request.urlopen(urllib.request.Request(f"{self.url}/patients/{patient}", method="DELETE"))

    def stop(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)
        self._log.close()


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    running = Archive(tmp_path_factory.mktemp("orthanc"))
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[list[Path], list[Path]]:
    """(acquired files, exported files: classic and enhanced) of one patient."""
    folder = tmp_path_factory.mktemp("export")
    source = write_study(folder / "study", "oblique")
    study = read_study(source)
    result = make_result(study, ("T1C", "T2FS"))
    for name, enhanced in (("classic", False), ("enhanced", True)):
        export_dicom(result, provenance(result, study), dicom_files(source), folder / name, enhanced=enhanced)
    return dicom_files(source), dicom_files(folder / "classic") + dicom_files(folder / "enhanced")


def store(archive: Archive, files: list[Path]) -> None:
    """C-STORE by DCMTK's storescu, which fails when one object is refused."""
    done = subprocess.run(["storescu", "--required", "127.0.0.1", str(archive.dicom_port), *map(str, files)],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def assert_same(sent: pydicom.Dataset, back: pydicom.Dataset) -> None:
    """Every element of the object, pixels included."""
    for keyword in ("PixelData", "FloatPixelData"):
        if keyword in sent:
            assert sent[keyword].value == back[keyword].value
    assert pydicom.Dataset(sent) == pydicom.Dataset(back)


def test_what_was_stored_by_c_store_comes_back_bit_by_bit(archive, files):
    archive.clear()
    _, made = files
    store(archive, made)
    back = [archive.file(identifier) for identifier in archive.get("instances")]
    by_uid = {str(dataset.SOPInstanceUID): dataset for dataset in back}
    assert len(by_uid) == len(made)
    for path in made:
        sent = pydicom.dcmread(path)
        assert_same(sent, by_uid[str(sent.SOPInstanceUID)])


def test_what_was_stored_by_dicomweb_comes_back_bit_by_bit(archive, files):
    client_module = pytest.importorskip("dicomweb_client.api", reason="dicomweb-client is not installed")
    archive.clear()
    _, made = files
    sent = [pydicom.dcmread(path) for path in made]
    client = client_module.DICOMwebClient(f"{archive.url}/dicom-web")
    client.store_instances(sent)
    study = str(sent[0].StudyInstanceUID)
    found = client.search_for_series(study_instance_uid=study)
    assert {one["0020000E"]["Value"][0] for one in found} == {str(d.SeriesInstanceUID) for d in sent}
    back = {str(d.SOPInstanceUID): d for d in client.retrieve_study(study)}
    assert set(back) == {str(d.SOPInstanceUID) for d in sent}
    for dataset in sent:
        assert_same(dataset, back[str(dataset.SOPInstanceUID)])


def test_the_archive_files_results_with_the_patients_images(archive, files):
    archive.clear()
    acquired, made = files
    store(archive, [*acquired, *made])
    assert len(archive.get("patients")) == 1
    study, = archive.get("studies?expand")
    series = [archive.get(f"series/{identifier}") for identifier in study["Series"]]
    modalities = sorted(one["MainDicomTags"]["Modality"] for one in series)
    # Acquired: two MR and an RTSTRUCT; each export: two MR, two uncertainty maps, a segmentation, an RTSTRUCT.
    assert modalities == sorted(["MR"] * 6 + ["OT"] * 4 + ["SEG"] * 2 + ["RTSTRUCT"] * 3)
    named = [one["MainDicomTags"]["SeriesDescription"] for one in series]
    assert sum(name.startswith("SYNTH ") for name in named) == 12
    frames = set()
    for one in series:
        frames.add(str(archive.file(one["Instances"][0]).get("FrameOfReferenceUID")))
    assert len(frames - {"None"}) == 1


def test_slices_rendered_by_the_archive_are_the_results(archive, files):
    """Decoded by Orthanc, not by us: what another program sees."""
    archive.clear()
    _, made = files
    path = next(p for p in made if p.name == "IM0003.dcm")
    store(archive, [path])
    identifier, = archive.get("instances")
    request = urllib.request.Request(f"{archive.url}/instances/{identifier}/image-uint16",
                                     headers={"Accept": "image/x-portable-arbitrarymap"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        head, body = answer.read().split(b"ENDHDR\n")
    sent = pydicom.dcmread(path).pixel_array
    assert b"WIDTH %d" % sent.shape[1] in head and b"HEIGHT %d" % sent.shape[0] in head
    np.testing.assert_array_equal(np.frombuffer(body, ">u2").reshape(sent.shape), sent)
