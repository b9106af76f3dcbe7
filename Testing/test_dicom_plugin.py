"""The DICOM plugin, over the real scene, with a database that reads real files."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest
from dicom_cases import dicom_files, make_result, read_study, write_study

pytest.importorskip("slicer", reason="slicer-core or a system library that it needs is missing", exc_type=ImportError)
pytest.importorskip("PySide6.QtUiTools", reason="PySide6 or a library of it is missing", exc_type=ImportError)
pytest.importorskip("highdicom")

from slicer_stand_in import install, load_module, new_scene

from NPCSynthLib.output.dicom_export import export_dicom
from NPCSynthLib.output.provenance import provenance
from NPCSynthLib.scene import drawn_on

slicer = install()
module = load_module(Path(__file__).resolve().parents[1] / "NPCSynth" / "DICOMNPCSynthPlugin.py")


class Database:
    """Values as Slicer's database gives them: text, "" where there is none."""

    def fileValue(self, path, tag):
        value = pydicom.dcmread(path, stop_before_pixels=True).get(tuple(int(part, 16) for part in tag.split(",")))
        return "" if value is None else str(value.value)


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """Lists of files by series: the acquired ones, then the exported ones."""
    folder = tmp_path_factory.mktemp("dicom")
    files = dicom_files(write_study(folder / "study", "oblique"))
    study = read_study(folder / "study")
    result = make_result(study)
    written = export_dicom(result, provenance(result, study), files, folder / "out")
    acquired = {}
    for file in files:
        acquired.setdefault(pydicom.dcmread(file, stop_before_pixels=True).SeriesInstanceUID, []).append(str(file))
    return [*acquired.values()], {s.description: [str(folder / "out" / f) for f in s.files] for s in written}


@pytest.fixture
def plugin(monkeypatch):
    monkeypatch.setattr(slicer, "dicomDatabase", Database(), raising=False)
    new_scene()
    return module.DICOMNPCSynthPluginClass()


def test_exported_series_are_offered_first_and_as_synthetic(plugin, series):
    _, exported = series
    offered = {loadable.name: loadable for loadable in plugin.examineForImport(list(exported.values()))}
    assert set(offered) == {
        f"SYNTH {what} (synthetic, research use)" for what in ("T1C", "T1C uncertainty", "structures")
    }
    assert all(loadable.selected and loadable.confidence > 0.95 for loadable in offered.values())


def test_acquired_series_are_left_to_others(plugin, series):
    acquired, _ = series
    assert plugin.examineForImport(acquired) == []


def test_a_loaded_series_is_marked_and_filed(plugin, series):
    _, exported = series
    (loadable,) = plugin.examineForImport([exported["SYNTH T1C"]])
    node = plugin.load(loadable)
    assert node.GetName() == "T1C (synthetic)" and node.GetAttribute("StandIn.Filed") == "yes"
    assert len(node.GetAttribute("DICOM.instanceUIDs").split()) == len(loadable.files)


def test_contours_come_back_on_the_image_that_they_were_made_on(plugin, series):
    """The DICOM module offers that image too; loaded before, it gives the contours their geometry and frame."""
    acquired, exported = series
    (loadable,) = plugin.examineForImport([exported["SYNTH structures"]])
    of_reference = [str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID) for file in acquired[0]]
    others = [str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID) for file in acquired[1]]
    assert set(loadable.referencedInstanceUIDs) in (set(of_reference), set(others))
    (image,) = plugin.examineForImport([exported["SYNTH T1C"]])
    assert image.referencedInstanceUIDs == [], "its first slice names one of each source: no series to load"
    node = plugin.load(loadable)
    assert drawn_on(node) is None
    scene = slicer.mrmlScene
    images = []
    for uids in (of_reference, others):
        images.append(scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode"))
        slicer.util.updateVolumeFromArray(images[-1], np.zeros((3, 4, 5), np.int16))
        images[-1].SetAttribute("DICOM.instanceUIDs", " ".join(uids))
    moved = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    wanted = images[0 if set(loadable.referencedInstanceUIDs) == set(of_reference) else 1]
    wanted.SetAndObserveTransformNodeID(moved.GetID())
    node = plugin.load(loadable)
    assert drawn_on(node) is wanted and node.GetParentTransformNode() is moved


def test_a_damaged_series_is_said_and_nothing_is_added(plugin, series, caplog, tmp_path):
    _, exported = series
    (loadable,) = plugin.examineForImport([exported["SYNTH structures"]])
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(Path(exported["SYNTH structures"][0]).read_bytes()[:3000])
    loadable.files = [str(cut)]
    before = slicer.mrmlScene.GetNumberOfNodes()
    assert plugin.load(loadable) is False
    assert "damaged" in caplog.text and slicer.mrmlScene.GetNumberOfNodes() == before


def test_slicers_own_export_is_refused_what_is_synthetic_and_nothing_else(plugin, series, monkeypatch):
    """Its dialog puts the highest confidence on top and chooses it; other plugins would write no mark."""
    _, exported = series
    monkeypatch.setattr(slicer, "qSlicerDICOMExportable", SimpleNamespace, raising=False)
    tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    plain = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "T1")
    drawn = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Doctor")
    loaded = [plugin.load(plugin.examineForImport([exported[name]])[0]) for name in ("SYNTH T1C", "SYNTH structures")]
    offered = {}
    for node in (plain, drawn, *loaded):
        item = tree.GetItemByDataNode(node) or tree.CreateItem(tree.GetSceneItemID(), node)
        offered[node.GetID()] = plugin.examineForExport(item)
    assert [bool(offered[node.GetID()]) for node in (plain, drawn, *loaded)] == [False, False, True, True]
    (exportable,) = offered[loaded[0].GetID()]
    assert exportable.confidence > 1, "Slicer's plugin for segmentations has 1, and of equal ones stands before this"
    assert "NPCSynth" in plugin.export([exportable])
    assert plugin.examineForExport(tree.GetSceneItemID()) == []


def test_a_slicer_without_what_it_needs_gets_no_plugin(monkeypatch):
    """Before 5.12: it could load nothing, and would keep others from loading it."""
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    slicer.modules.__dict__.pop("dicomPlugins", None)
    module.DICOMNPCSynthPlugin(SimpleNamespace())
    assert not hasattr(slicer.modules, "dicomPlugins")


def test_slicer_finds_the_plugin():
    class Parent:
        pass

    slicer.modules.__dict__.pop("dicomPlugins", None)
    parent = Parent()
    module.DICOMNPCSynthPlugin(parent)
    assert slicer.modules.dicomPlugins == {"DICOMNPCSynthPlugin": module.DICOMNPCSynthPluginClass}
    assert parent.hidden
