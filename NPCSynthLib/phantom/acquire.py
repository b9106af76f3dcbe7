"""The scanner: from anatomy and protocol to an image volume with a scanner's imperfections."""

import numpy as np
import SimpleITK as sitk

from ..study.study import DIGITAL_PATIENT
from ..study.volume import Grid, Volume, to_sitk
from ..vocabulary import get_sequence
from .anatomy import Anatomy
from .shapes import smooth_noise
from .signal import Protocol, signal
from .tissues import TISSUES

_SLICE_GAP = 0.1


def acquire(
    anatomy: Anatomy,
    protocol: Protocol,
    rng: np.random.Generator,
    grid: Grid | None = None,
    noise: float = 0.015,
    bias: float = 0.15,
    motion: float = 0.0,
) -> Volume:
    """Acquire one sequence.

    The tissues' texture follows from the anatomy's seed, so that all sequences of a patient share it.
    Several samples are averaged within each voxel (partial volume).

    Args:
        grid: where to acquire; default ``scan_grid(anatomy, protocol)``.
        noise: standard deviation of the noise in each channel (the image is Rician) relative to the 99th percentile
            of the signal.
        bias: standard deviation of the logarithm of the receive coil's sensitivity.
        motion: amplitude in mm of a periodic motion along the rows' axis, which ghosts in that direction.

    Returns:
        uint16 volume in arbitrary scanner units; metadata under DICOM keywords.
    """
    if grid is None:
        grid = scan_grid(anatomy, protocol)
    image = _sample(tissue_signal(anatomy, protocol), anatomy.grid, grid)
    reference = max(float(np.percentile(image[image > 0.02], 99)) if (image > 0.02).any() else 1.0, 1e-3)
    if bias:
        sensitivity = np.exp(bias * smooth_noise(anatomy.grid, 130.0, int(rng.integers(2**31))))
        image *= _sample(sensitivity, anatomy.grid, grid, supersample=False, outside=1.0)
    if motion:
        image = _ghost(image, motion / grid.spacing[1], rng)
    if noise:
        sigma = np.float32(noise * reference)
        real = image + sigma * rng.standard_normal(image.shape, np.float32)
        image = np.hypot(real, sigma * rng.standard_normal(image.shape, np.float32))
    image *= np.float32(rng.uniform(600, 1800) / reference)
    metadata = header(protocol, grid)
    return Volume(
        np.clip(np.rint(image), 0, 32767).astype(np.uint16), grid, metadata["SeriesDescription"], metadata
    )


def tissue_signal(anatomy: Anatomy, protocol: Protocol) -> np.ndarray:
    """Noise-free signal on the anatomy's own grid, (k, j, i) float32: tissue values with texture, then physics."""
    rng = np.random.default_rng([anatomy.seed, 100])
    tissues = [TISSUES[name] for name in anatomy.tissue_names]
    field = protocol.field_strength_t
    # Every patient's tissues differ a little from the textbook.
    spread = {key: np.exp(s * rng.standard_normal(len(tissues))) for key, s in
              (("t1", 0.04), ("t2", 0.06), ("uptake", 0.2))}
    tables = np.array([
        [t.t1_ms[field] for t in tissues] * spread["t1"],
        [t.t2_ms[field] for t in tissues] * spread["t2"],
        [t.pd for t in tissues],
        [t.fat_fraction for t in tissues],
        [t.enhancement for t in tissues] * spread["uptake"],
        [t.flow_void for t in tissues],
    ], np.float32)
    body = anatomy.labels > 0
    t1, t2, pd, fat, uptake, flow_void = tables[:, anatomy.labels[body]]
    for number, (values, strength) in enumerate(((t1, 0.04), (t2, 0.05), (pd, 0.02))):
        texture = smooth_noise(anatomy.grid, 4.0, [anatomy.seed, 101, number])[body]
        texture += smooth_noise(anatomy.grid, 11.0, [anatomy.seed, 102, number])[body]
        values *= np.exp(np.float32(strength / 1.4) * texture)
    image = np.zeros(anatomy.grid.shape, np.float32)
    image[body] = signal(t1, t2, pd, fat, uptake, protocol, flow_void)
    return image


def scan_grid(anatomy: Anatomy, protocol: Protocol) -> Grid:
    """The grid on which a hospital would acquire this protocol.

    Axial slices of 4 mm with a gap, tilted by a few degrees as the patient's head asks (all axial series of a patient
    alike); MPRAGE sagittal and other gradient echoes axial, both near isotropic. Resolution follows the
    anatomy's, so that a coarse anatomy gives a small volume.
    """
    fine = float(anatomy.grid.spacing.min())
    tilt = np.random.default_rng([anatomy.seed, 103]).normal(0, 1, 2) * (4.0, 1.5)
    a, b = np.deg2rad(tilt.clip(-9, 9))
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    direction = about_x @ about_y
    extent = anatomy.grid.spacing * anatomy.grid.shape[::-1]
    if protocol.kind == "GRE" and protocol.TI_ms is not None:
        # Sagittal: i runs posterior, j inferior, k to the right.
        direction = direction @ np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0]], float)
        extent = extent[[1, 2, 0]]
        spacing = np.full(3, fine)
    elif protocol.kind == "GRE":
        spacing = np.array((0.9, 0.9, 1.5)) * fine
    else:
        in_plane = (0.8 if protocol.contrast_mmol_l or protocol.TE_ms > 40 else 0.72) * fine
        spacing = np.array((in_plane, in_plane, max(4.0, 1.5 * fine) * (1 + _SLICE_GAP)))
        # Tilted slices must stay within the anatomy.
        extent = extent * (1, 1, 0.9)
    count = np.maximum(np.floor(extent / spacing), 4).astype(int)
    center = anatomy.grid.origin + anatomy.grid.spacing * (np.array(anatomy.grid.shape[::-1]) - 1) / 2
    origin = center - direction @ (spacing * (count - 1) / 2)
    return Grid.from_parts(count[::-1], spacing, origin, direction)


def header(protocol: Protocol, grid: Grid) -> dict:
    """What a scanner would write of this acquisition, by DICOM keyword."""
    sequence = get_sequence(protocol.sequence)
    volumetric = protocol.kind == "GRE"
    prepared = protocol.TI_ms is not None
    normal = np.abs(grid.direction[:, 2])
    plane = ("sag", "cor", "tra")[int(normal.argmax())]
    if volumetric:
        technique = "mprage" if prepared else "gre_3d"
    elif prepared:
        technique = "flair" if sequence.inversion_recovery else "stir"
    else:
        technique = protocol.kind.lower()
    parts = [sequence.weighting.lower(), technique, plane]
    parts += ["fs"] if protocol.fat_suppression else []
    parts += ["KM"] if protocol.contrast_mmol_l else []
    variant = ["SP", "MP"] if volumetric and prepared else ["SP"] if volumetric else ["SK"]
    if protocol.kind == "SE":
        variant = ["NONE"]
    facts = {
        "Modality": "MR",
        "SeriesDescription": "_".join(parts),
        "ProtocolName": "_".join(parts),
        "ImageType": ["ORIGINAL", "PRIMARY", "M"],
        "ScanningSequence": (["GR"] if volumetric else ["SE"]) + (["IR"] if prepared else []),
        "SequenceVariant": variant,
        "ScanOptions": ["FS"] if protocol.fat_suppression else [],
        "MRAcquisitionType": "3D" if volumetric else "2D",
        "RepetitionTime": round(protocol.TR_ms, 2),
        "EchoTime": round(protocol.TE_ms, 2),
        "EchoTrainLength": 1 if protocol.kind in ("SE", "GRE") else 3 if sequence.weighting == "T1" else 16,
        "FlipAngle": round(protocol.flip_deg, 1),
        "MagneticFieldStrength": protocol.field_strength_t,
        "ImagingFrequency": round(42.577 * protocol.field_strength_t, 3),
        "SliceThickness": round(float(grid.spacing[2]) / (1 if volumetric else 1 + _SLICE_GAP), 4),
        "SpacingBetweenSlices": round(float(grid.spacing[2]), 4),
        "PatientPosition": "HFS",
        "BodyPartExamined": "HEADNECK",
        **DIGITAL_PATIENT,
    }
    if prepared:
        facts["InversionTime"] = round(protocol.TI_ms, 1)
    if protocol.contrast_mmol_l:
        facts["ContrastBolusAgent"] = "Gadobutrol"
    return facts


def _sample(array, source: Grid, target: Grid, supersample: bool = True, outside: float = 0.0) -> np.ndarray:
    """Mean of the array within each target voxel, float32; linear between source voxels."""
    image = to_sitk(array, source)
    steps = np.ones(3, int)
    if supersample:
        # A thin slanted plate must not break up into a comb: samples lie closer than the source voxels.
        steps = np.maximum(np.rint(1.5 * target.spacing / source.spacing.min() - 0.4), 1).astype(int)
    total = np.zeros(target.shape, np.float32)
    for offset in np.ndindex(*steps):
        shift = ((np.array(offset) + 0.5) / steps - 0.5) * target.spacing
        total += sitk.GetArrayFromImage(sitk.Resample(
            image, target.shape[::-1], sitk.Transform(), sitk.sitkLinear,
            (target.origin + target.direction @ shift).tolist(), target.spacing.tolist(),
            target.direction.ravel().tolist(), float(outside), sitk.sitkFloat32,
        ))
    return total / np.float32(steps.prod())


def _ghost(image, amplitude_voxels, rng):
    """Image of a head that nods periodically during the scan: each line of k-space is seen shifted."""
    rows = image.shape[1]
    frequency = np.fft.fftfreq(rows)
    lines = np.arange(rows)
    nod = amplitude_voxels * np.sin(2 * np.pi * lines / rng.uniform(4, 12) + rng.uniform(0, 2 * np.pi))
    # In the order of acquisition the lines run through k-space from end to end.
    phase = np.exp(-2j * np.pi * frequency * np.fft.ifftshift(nod)).astype(np.complex64)
    ghosted = np.empty_like(image)
    for k, plane in enumerate(image):
        ghosted[k] = np.abs(np.fft.ifft(np.fft.fft(plane, axis=0) * phase[:, None], axis=0))
    return ghosted
