"""Tissue label maps as training anatomy: public head models and our own phantom, on one list of classes.

A class is a group of voxels that shares its tissue; which tissue that is may vary from sample to sample, since
the public maps name some regions only roughly ("soft tissue"). Such regions are broken up by smooth noise so
that the face is not one flat patch.
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..errors import InputError
from ..vocabulary import load_classes
from .sample import IGNORE, NERVOUS_TISSUE, SOFT_TISSUE

# some structure of SOFT_TISSUE or NERVOUS_TISSUE, the map does not tell which
_SOFT, _NERVOUS = "soft tissue", "nervous tissue"
_KINDS_OF_TISSUE = {_SOFT: SOFT_TISSUE, _NERVOUS: NERVOUS_TISSUE}
#: class -> (tissues it may be, structure in Resources/structures.json, a kind of tissue, or None when unknown)
CLASSES: dict[str, tuple[tuple[str, ...], str | None]] = {
    "air": (("air",), "background"),
    "cavity": (("air", "air", "secretion"), "body"),
    "gray_matter": (("gray_matter",), "Brain"),
    "white_matter": (("white_matter",), "Brain"),
    "some_gray": (("gray_matter",), _NERVOUS),
    "some_white": (("white_matter",), _NERVOUS),
    "deep_gray": (("deep_gray",), "Brain"),
    "cerebellum_gray": (("cerebellum_gray",), "Brain"),
    "cerebellum_white": (("cerebellum_white",), "Brain"),
    "csf": (("csf",), None),
    "ventricle": (("csf",), "Brain"),
    "brainstem": (("brainstem",), "Brainstem"),
    "spinal_cord": (("spinal_cord",), "SpinalCord"),
    "vessel": (("artery", "vein", "venous_sinus"), None),
    "choroid_plexus": (("choroid_plexus",), "Brain"),
    "white_lesion": (("white_matter_lesion", "edema"), "Brain"),
    "optic_nerve": (("optic_nerve",), "body"),
    "dura": (("dura", "connective_tissue"), "body"),
    "vitreous": (("vitreous",), "Eye"),
    "lens": (("lens",), "Eye"),
    "skin": (("skin",), "body"),
    "fat": (("subcutaneous_fat", "deep_fat"), "body"),
    "muscle": (("muscle",), _SOFT),
    "connective": (("connective_tissue", "cartilage"), _SOFT),
    "tongue": (("tongue",), "body"),
    "mucosa": (("mucosa",), _SOFT),
    "cortical_bone": (("cortical_bone",), "body"),
    "marrow": (("fatty_marrow", "red_marrow"), "body"),
    "bone": (("cortical_bone", "fatty_marrow", "red_marrow"), "body"),
    "teeth": (("teeth", "fatty_marrow"), "body"),
    "soft_a": (("subcutaneous_fat", "deep_fat"), _SOFT),
    "soft_b": (("muscle", "tongue"), _SOFT),
    "soft_c": (("parotid", "submandibular", "mucosa", "connective_tissue", "lymph_node"), _SOFT),
    "face_a": (("muscle", "mucosa", "connective_tissue", "subcutaneous_fat"), _SOFT),
    "face_b": (("subcutaneous_fat", "fatty_marrow", "deep_fat", "muscle"), _SOFT),
    "anything": (("muscle", "mucosa", "connective_tissue", "deep_fat", "teeth"), None),
    "lesion": (("npc_tumor", "edema", "glioma_enhancing", "white_matter_lesion", "nodal_tumor"), None),
    "lesion_core": (("glioma_enhancing", "necrosis", "npc_tumor"), None),
}
_PHANTOM_CLASS = "phantom:"
_INDEX = {name: n for n, name in enumerate(CLASSES)}

# FreeSurfer's brain; outside of it the tissues of SimNIBS's head atlas: 502 artery, 506 eye, 507 other, 508 eye muscle,
# 509 mucosa, 511 skin, 512 spinal cord, 514 vein, 515 cortical and 516 cancellous bone, 530 optic nerve. 0 is air.
_SYNTHSEG = {
    "white_matter": (2, 41), "gray_matter": (3, 42, 17, 18, 53, 54), "ventricle": (4, 5, 14, 15, 43, 44),
    "cerebellum_white": (7, 46), "cerebellum_gray": (8, 47), "brainstem": (16,), "csf": (24, 72),
    "deep_gray": (10, 11, 12, 13, 26, 28, 49, 50, 51, 52, 58, 60, 136, 137, 163, 164), "white_lesion": (25, 57),
    "vessel": (30, 62, 502, 514), "optic_nerve": (85, 530), "vitreous": (506,), "soft": (507,), "muscle": (508,),
    "mucosa": (509,), "skin": (511,), "spinal_cord": (512,), "cortical_bone": (515,), "marrow": (516,),
}  # fmt: skip
_MGH = {
    "white_matter": (2, 41), "gray_matter": (3, 42, 17, 18, 53, 54, 96, 97), "ventricle": (4, 5, 14, 15, 43, 44),
    "cerebellum_white": (7, 46), "cerebellum_gray": (8, 47), "brainstem": (16,), "csf": (24, 122),
    "deep_gray": (10, 11, 12, 13, 26, 28, 49, 50, 51, 52, 58, 60), "vessel": (62,), "optic_nerve": (85, 128),
    "dura": (98,), "skin": (118, 124), "connective": (119,), "soft": (120,), "spinal_cord": (126,),
    "face_a": (127,), "bone": (129,), "cavity": (130, 154), "fat": (131,), "tongue": (132,), "mucosa": (133,),
    "teeth": (135,), "vitreous": (143, 145), "lens": (140, 144), "marrow": (142,), "cortical_bone": (146, 147),
    "face_b": (150, 153),
}  # fmt: skip
# "teeth" of these hold eyes, brainstem, vertebral disks and more; "brain" has no parts
_HS = {
    "csf": (2,), "anything": (3, 4), "muscle": (5,), "fat": (6,), "bone": (7,), "cavity": (8,), "vitreous": (9,),
    "brain": (10,),
}  # fmt: skip
# brainstem and eyes have no label of their own
_ANGEL = {"some_white": (1,), "some_gray": (2,), "csf": (3,), "bone": (4,), "soft": (5,)}

#: file name pattern -> (labels of each class, array axes (as read) that become k, j, i; "-" flips).
#: The head_neck files carry plain diagonal affines; their axes were set right by looking at them.
_KINDS = {
    r"training_seg": (_SYNTHSEG, None),
    r"MGH_DCA": (_MGH, ("-2", "-0", "1")),
    r"HS\d": (_HS, ("-2", "0", "1")),
    r"Angel": (_ANGEL, ("0", "-1", "2")),
}


@dataclass(frozen=True)
class LabelMap:
    """Training anatomy.

    Attributes:
        classes: (k, j, i) uint8 indices into ``names``; k runs from inferior to superior, j from anterior to
            posterior, i from right to left.
        spacing: (k, j, i) voxel size in mm.
        names: what each index is (a key of CLASSES, or a tissue for phantom maps).
        counts: voxels of each index.
        structures: (k, j, i) uint8 index into ``load_classes()`` or IGNORE; None where ``names`` tells it.
        name: for messages and the model card.
    """

    classes: np.ndarray
    spacing: np.ndarray
    names: tuple[str, ...]
    counts: np.ndarray
    structures: np.ndarray | None
    name: str

    def tissues(self, rng: np.random.Generator) -> list[str]:
        """One tissue for each class, drawn for one sample."""
        return [
            n.removeprefix(_PHANTOM_CLASS) if n.startswith(_PHANTOM_CLASS) else str(rng.choice(CLASSES[n][0]))
            for n in self.names
        ]

    def structure_table(self) -> np.ndarray:
        """(classes,) uint8: structure index of each class; where it is not known, of POSSIBLE_CLASSES, or IGNORE."""
        order = load_classes()
        table = np.full(len(self.names), IGNORE, np.uint8)
        for n, name in enumerate(self.names):
            structure = CLASSES.get(name, ((), None))[1]
            if structure in _KINDS_OF_TISSUE:
                table[n] = _KINDS_OF_TISSUE[structure]
            elif structure is not None:
                table[n] = order.index(structure)
        return table


def _smooth_noise(shape, sigma: float, rng) -> np.ndarray:
    """(k, j, i) noise in 0..1 (ranks are about uniform) with structures of about ``sigma`` voxels."""
    coarse = [max(4, int(np.ceil(n / sigma)) + 1) for n in shape]
    field = ndimage.zoom(rng.standard_normal(coarse).astype(np.float32), np.array(shape) / coarse, order=1)
    return ndimage.gaussian_filter(field, sigma / 3)


def _split(labels: np.ndarray, region: np.ndarray, parts, sigma: float, rng) -> None:
    """Break ``region`` up among classes (name, share) by smooth noise."""
    noise = _smooth_noise(labels.shape, sigma, rng)[region]
    edges = np.quantile(noise, np.cumsum([share for _, share in parts])[:-1])
    order = np.array([_INDEX[name] for name, _ in parts], np.uint8)
    labels[region] = order[np.searchsorted(edges, noise)]


def find_labelmaps(data_dir: Path) -> list[Path]:
    """The public label maps in labelmaps/ of which it is known what their labels are.

    Giorgio is not among them: its key does not fit (cerebrospinal fluid is called brain), and white matter shares a
    label with muscle.
    """
    folders = [data_dir / "labelmaps" / kind for kind in ("synthseg", "head_neck")]
    paths = [path for folder in folders for path in sorted(folder.glob("*.nii.gz"))]
    return [path for path in paths if any(re.search(pattern, path.name) for pattern in _KINDS)]


@cache  # stages of one run ask for the same ones
def load_labelmap(path: Path, seed: int = 0) -> LabelMap:
    """Read one public label map (see ``_KINDS``) and bring it to our classes and axes.

    Raises InputError when it is damaged or empty.
    """
    mapping, axes = next(kind for pattern, kind in _KINDS.items() if re.search(pattern, path.name))
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise InputError(f"The label map {path.name} cannot be read. Copy it again, or take it out.") from error
    if axes is None:
        image = sitk.DICOMOrient(image, "LPS")
    array = sitk.GetArrayFromImage(image).astype(np.int16)
    spacing = np.array(image.GetSpacing()[::-1])
    if axes is not None:
        order = [int(a.strip("-")) for a in axes]
        array, spacing = array.transpose(order), spacing[order]
        array = array[tuple(slice(None, None, -1 if a.startswith("-") else 1) for a in axes)]
    rng = np.random.default_rng(seed)
    labels = np.zeros(array.shape, np.uint8)
    deferred = {}
    for name, values in mapping.items():
        region = np.isin(array, values)
        if name in _INDEX:
            labels[region] = _INDEX[name]
        else:
            deferred[name] = region
    if not any(region.any() for region in (labels, *deferred.values())):
        raise InputError(f"The label map {path.name} holds no label that is known. Copy it again, or take it out.")
    scale = 1.0 / float(spacing[2])
    if "soft" in deferred:
        _split(labels, deferred["soft"], (("soft_a", 0.4), ("soft_b", 0.4), ("soft_c", 0.2)), 9 * scale, rng)
        # fat lies under the skin: what is near the outside is mostly fat
        depth = ndimage.distance_transform_edt(array != 0, sampling=spacing)
        labels[deferred["soft"] & (depth < 5 + 4 * _smooth_noise(labels.shape, 20 * scale, rng))] = _INDEX["soft_a"]
    if "brain" in deferred:
        _split(labels, deferred["brain"], (("some_white", 0.45), ("some_gray", 0.55)), 5 * scale, rng)
    if mapping is _HS:  # these reach down to the chest: keep the head and the neck
        labels[: int(np.nonzero(labels.any(axis=(1, 2)))[0].max() - 300 / spacing[0])] = 0
    occupied = np.nonzero(labels)
    box = tuple(slice(max(0, int(a.min()) - 12), int(a.max()) + 13) for a in occupied)
    labels = np.ascontiguousarray(labels[box])
    counts = np.bincount(labels.ravel(), minlength=len(CLASSES))
    return LabelMap(labels, spacing, tuple(CLASSES), counts, None, path.name)


@cache
def phantom_labelmap(seed: int) -> LabelMap:
    """Our own phantom as a label map, with every structure known."""
    from ..phantom.anatomy import make_anatomy

    anatomy = make_anatomy(seed, shape=(150, 160, 144), spacing=(1.6, 1.4, 1.4))
    order = load_classes()
    structures = np.zeros(anatomy.labels.shape, np.uint8)
    structures[anatomy.structures["External"]] = order.index("body")
    for name, mask in anatomy.structures.items():
        part = name.removesuffix("_L").removesuffix("_R")
        if part in order and part not in ("GTVp", "GTVn"):
            structures[mask] = order.index(part)
    for name in ("GTVn", "GTVp"):
        if name in anatomy.structures:
            structures[anatomy.structures[name]] = order.index(name)
    names = tuple(_PHANTOM_CLASS + tissue for tissue in anatomy.tissue_names)
    counts = np.bincount(anatomy.labels.ravel(), minlength=len(names))
    return LabelMap(
        anatomy.labels, anatomy.grid.spacing[::-1].copy(), names, counts, structures, f"phantom {seed}"
    )
