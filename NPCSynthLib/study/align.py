"""Bring one volume onto another's grid: rigid registration when it is needed, and resampling.

Transforms follow SimpleITK: they map LPS points (mm) of the fixed volume to points of the moving one.
SciPy and SimpleITK are loaded when they are needed: they take long, and Slicer loads this module at its start.
"""

import math

import numpy as np

from ..errors import InputError
from .normalize import body_mask, normalize, percentiles
from .volume import Grid, Volume, from_sitk, to_sitk

#: Gain in mutual information, relative to the optimum, below which a registration is not worth an interpolation.
MINIMUM_GAIN = 0.03
#: Largest plausible motion in mm and degrees within one frame of reference, and where the headers share none.
SAME_FRAME_LIMIT = (60.0, 45.0)
OTHER_FRAME_LIMIT = (200.0, 60.0)

_COARSE_MM = 2.0
_SEED = 20260
_POINTS = 200_000
_POINTS_A_LEVEL = 80_000
_ORDERS = ("linear", "bspline", "nearest")


def align(
    moving: Volume,
    fixed: Volume,
    moving_mask: np.ndarray | None = None,
    fixed_mask: np.ndarray | None = None,
):
    """Measure whether two volumes of one patient are out of register and find the rigid motion that aligns them.

    Mattes mutual information (IEEE Trans Med Imaging 2003;22:120-128) on copies of about 2 mm, coarse to fine. The
    search starts where the headers say; when the volumes do not share a frame of reference it also starts with the
    two bodies centered on each other, and the better result counts. The identity is kept when

    - no corner of the fixed body moves by more than half a voxel of the coarser volume (geometric mean of its
      sides), or
    - mutual information at the optimum is less than 3 % better (on brains a true shift of 1 mm gains 3 to 9 %, noise
      and distortion up to 2 %), or
    - the motion found is implausible (within one frame of reference more than 60 mm or 45 degrees).

    The same input gives the same result; a transform that lowers the metric is never returned.

    Args:
        moving, fixed: volumes of one patient, any two contrasts.
        moving_mask, fixed_mask: their body masks, (k, j, i) bool, where they are known already.

    Returns:
        (transform, report). transform: SimpleITK Euler3DTransform from fixed to moving LPS points, or None when the
        identity is kept. report: {"applied", "translation_mm" (of the body's center), "rotation_deg",
        "max_displacement_mm" (over the body's corners), "metric_before", "metric_after" (mutual information, higher
        is better), "reason" (a sentence), "warning" (a sentence or None)}; the numbers describe the motion that was
        found, applied or not.

    Raises:
        InputError: the volumes do not overlap at all.
    """
    import SimpleITK as sitk

    if apart(fixed.grid, moving.grid):
        raise InputError(no_overlap_message(moving, fixed))

    fixed_mask = body_mask(fixed.array, fixed.grid.spacing) if fixed_mask is None else fixed_mask
    moving_mask = body_mask(moving.array, moving.grid.spacing) if moving_mask is None else moving_mask
    corners, fixed_center = _body_box(fixed_mask, fixed.grid)
    _, moving_center = _body_box(moving_mask, moving.grid)
    fixed_image = _coarse(fixed, fixed_mask)
    moving_image = _coarse(moving, moving_mask)

    def rigid(translation):
        transform = sitk.Euler3DTransform()
        transform.SetCenter(fixed_center.tolist())
        transform.SetTranslation([float(t) for t in translation])
        return transform

    same_frame = _same_frame(moving, fixed)
    starts = [rigid((0, 0, 0))]
    offset = moving_center - fixed_center
    if not same_frame and np.linalg.norm(offset) > 10:
        starts.append(rigid(offset))
    before = _mutual_information(fixed_image, moving_image, starts[0])
    found = [_search(fixed_image, moving_image, start) for start in starts]
    found = [(t, _mutual_information(fixed_image, moving_image, t)) for t in found if t is not None]
    transform, after = max(found, key=lambda pair: pair[1], default=(starts[0], before))

    moved = np.array([transform.TransformPoint(corner.tolist()) for corner in corners])
    displacement = float(np.linalg.norm(moved - corners, axis=1).max())
    shift = float(np.linalg.norm(np.array(transform.TransformPoint(fixed_center.tolist())) - fixed_center))
    matrix = np.array(transform.GetMatrix()).reshape(3, 3)
    rotation = math.degrees(math.acos(min(1.0, max(-1.0, (np.trace(matrix) - 1) / 2))))
    tolerance = 0.5 * max(float(np.prod(v.grid.spacing)) ** (1 / 3) for v in (moving, fixed))

    applied, warning = False, None
    motion = f"{shift:.1f} mm and {rotation:.1f} degrees"
    limit_mm, limit_deg = SAME_FRAME_LIMIT if same_frame else OTHER_FRAME_LIMIT
    if not found or not math.isfinite(after):
        reason = "Not registered: there are too few slices, or there is too little in common, to compare the images."
        warning = (f'"{moving.name}" could not be registered to "{fixed.name}": too few slices, or too little in '
                   "common. It is used where its header places it. Check that it lies right.")
    elif after <= before:
        reason = "Already aligned: no rigid motion matches the images better than their headers do."
    elif displacement <= tolerance:
        reason = (f"Already aligned: the best match moves the body by {displacement:.1f} mm at most, "
                  "less than half a voxel.")
    elif after - before < MINIMUM_GAIN * abs(after):
        reason = f"Already aligned: moving by {motion} would improve the match by less than {MINIMUM_GAIN:.0%}."
    elif shift > limit_mm or rotation > limit_deg:
        reason = f"Not moved: the best match ({motion}) is more than a patient moves."
        warning = (f'"{moving.name}" could not be registered to "{fixed.name}": the best match would move it by '
                   f"{motion}. It is used where its header places it. Check that both show one patient and "
                   "region; if not, leave it out.")
    else:
        applied = True
        reason = f"Registered: moved by {motion}."
    report = {
        "applied": applied, "translation_mm": round(shift, 3), "rotation_deg": round(rotation, 3),
        "max_displacement_mm": round(displacement, 3), "metric_before": round(before, 5),
        "metric_after": round(after, 5), "reason": reason, "warning": warning,
    }
    return (transform if applied else None), report


def resample(volume: Volume, grid: Grid, transform=None, order: str = "linear") -> tuple[np.ndarray, np.ndarray]:
    """The volume on another grid.

    Where the volume is finer than the grid it is first smoothed to the grid's voxel size (Gaussian of matching
    width), so that thin structures do not alias. Equal grids without a transform give an exact copy.

    Args:
        transform: as :func:`align` returns it (grid's LPS points to the volume's), or None.
        order: "linear", "bspline" (cubic) or "nearest" (never smoothed: for masks).

    Returns:
        (array, inside): (k, j, i) float32 in the volume's units, 0 outside its field of view; bool, True inside it.
    """
    import SimpleITK as sitk
    from scipy import ndimage

    if order not in _ORDERS:
        raise ValueError(f"order must be one of {', '.join(_ORDERS)}")
    if transform is None and volume.grid.matches(grid):
        return np.array(volume.array, np.float32), np.ones(grid.shape, bool)
    array = np.asarray(volume.array, np.float32)
    if order != "nearest":
        sigma = _smoothing(volume.grid, grid, transform)
        if any(sigma):
            array = ndimage.gaussian_filter(array, sigma, mode="nearest", truncate=3)
    interpolator = {"linear": sitk.sitkLinear, "bspline": sitk.sitkBSpline, "nearest": sitk.sitkNearestNeighbor}[order]
    transform = sitk.Transform(3, sitk.sitkIdentity) if transform is None else transform

    def onto(image, how):
        return sitk.GetArrayFromImage(sitk.Resample(
            image, [int(n) for n in reversed(grid.shape)], transform, how, grid.origin.tolist(), grid.spacing.tolist(),
            grid.direction.ravel().tolist(), 0, image.GetPixelID()))

    inside = onto(to_sitk(np.ones(array.shape, np.uint8), volume.grid), sitk.sitkNearestNeighbor).astype(bool)
    resampled = onto(to_sitk(array, volume.grid), interpolator)
    resampled[~inside] = 0
    return resampled, inside


def overlap(grid: Grid, other: Grid) -> float:
    """Fraction 0..1 of the field of view of ``grid`` that lies in the field of view of ``other``."""
    k, j, i = (np.linspace(-0.5 + 0.5 / 24, n - 0.5 - 0.5 / 24, 24) if n > 1 else np.zeros(1) for n in grid.shape)
    points = np.stack([a.ravel() for a in np.meshgrid(i, j, k, indexing="ij")] + [np.ones(i.size * j.size * k.size)])
    index = (np.linalg.inv(other.ijk_to_lps) @ grid.ijk_to_lps @ points)[:3]
    size = np.array(other.shape[::-1])[:, None]
    return float(np.all((index >= -0.5) & (index <= size - 0.5), axis=0).mean())


def apart(grid: Grid, other: Grid) -> bool:
    """Whether two fields of view have nothing in common. Asked both ways: a thin slab lies between the points of a
    large field."""
    return overlap(grid, other) == 0 and overlap(other, grid) == 0


def no_overlap_message(moving: Volume, fixed: Volume) -> str:
    """What to tell the user when two volumes show no common region."""
    return (f'"{moving.name}" and "{fixed.name}" show no common region: their fields of view do not overlap. Check '
            "that both belong to the same patient and examination, leave one out, or register them first.")


def _same_frame(moving: Volume, fixed: Volume) -> bool:
    frames = [v.metadata.get("FrameOfReferenceUID") for v in (moving, fixed)]
    return bool(frames[0]) and frames[0] == frames[1]


def _body_box(mask: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """(8, 3) LPS corners of the mask's bounding box and (3,) its center of gravity, mm."""
    from scipy import ndimage

    bounds = []
    for axis in (2, 1, 0):
        hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        bounds.append((hit[0], hit[-1]))
    corners = np.array([(i, j, k, 1) for i in bounds[0] for j in bounds[1] for k in bounds[2]], float)
    center = np.array([*ndimage.center_of_mass(mask)[::-1], 1.0])
    return (corners @ grid.ijk_to_lps.T)[:, :3], (grid.ijk_to_lps @ center)[:3]


def _coarse(volume: Volume, mask: np.ndarray):
    """SimpleITK image of about 2 mm voxels, the body's intensities at 0..1, averaged over blocks of voxels."""
    import SimpleITK as sitk

    image = to_sitk(np.clip(normalize(volume.array, *percentiles(volume.array, mask)), 0, 1.2), volume.grid)
    sides = zip(image.GetSpacing(), image.GetSize(), strict=True)
    factors = [max(1, min(round(_COARSE_MM / mm), n // 8)) for mm, n in sides]
    return sitk.BinShrink(image, factors)


def _mutual_information(fixed_image, moving_image, transform) -> float:
    """Mutual information in nats over random points of the fixed image; -inf when few of them are in the moving one.

    Random points, always the same ones, and not voxel centers: there, two volumes on one grid need no interpolation
    at the identity but do anywhere else, and mutual information is drawn to whatever smooths.
    """
    from scipy import ndimage

    rng = np.random.default_rng(_SEED)
    fixed, moving = from_sitk(fixed_image), from_sitk(moving_image)
    size = np.array(fixed.grid.shape[::-1])[:, None]
    index = rng.random((3, _POINTS)) * (size - 1)
    points = _apply(fixed.grid.ijk_to_lps, index)
    matrix = np.array(transform.GetMatrix()).reshape(3, 3)
    center = np.array(transform.GetCenter())[:, None]
    points = matrix @ (points - center) + center + np.array(transform.GetTranslation())[:, None]
    moved = _apply(np.linalg.inv(moving.grid.ijk_to_lps), points)
    size = np.array(moving.grid.shape[::-1])[:, None]
    inside = np.all((moved >= -0.5) & (moved <= size - 0.5), axis=0)
    if inside.sum() < 0.01 * _POINTS:
        return -math.inf
    values = [ndimage.map_coordinates(v.array, where[::-1, inside], order=1, mode="nearest")
              for v, where in ((fixed, index), (moving, moved))]
    joint = np.histogram2d(*values, bins=32, range=((0, 1.2), (0, 1.2)))[0] / inside.sum()
    independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    present = joint > 0
    return float((joint[present] * np.log(joint[present] / independent[present])).sum())


def _apply(matrix, points):
    return matrix[:3, :3] @ points + matrix[:3, 3:]


def _search(fixed_image, moving_image, start):
    """The best rigid transform from ``start``, or None when the optimizer loses the overlap."""
    import SimpleITK as sitk

    transform = sitk.Euler3DTransform(start)
    levels = 3 if min(fixed_image.GetSize()) >= 8 else 2
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.RANDOM)
    share = min(0.5, _POINTS_A_LEVEL / fixed_image.GetNumberOfPixels())
    method.SetMetricSamplingPercentagePerLevel([0.5, min(0.5, 4 * share), share][-levels:], _SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetInitialTransform(transform, inPlace=True)
    method.SetShrinkFactorsPerLevel([4, 2, 1][-levels:])
    method.SetSmoothingSigmasPerLevel([4.0, 2.0, 0.0][-levels:])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=2.0, minStep=0.002, numberOfIterations=100, relaxationFactor=0.7, gradientMagnitudeTolerance=1e-8)
    method.SetOptimizerScalesFromJacobian()
    try:
        method.Execute(fixed_image, moving_image)
    except RuntimeError:
        return None
    return transform


def _smoothing(source: Grid, target: Grid, transform) -> list[float]:
    """Standard deviation in source voxels along (k, j, i) that widens a source voxel to the target's."""
    rotation = np.eye(3)
    if transform is not None and hasattr(transform, "GetMatrix"):
        rotation = np.array(transform.GetMatrix()).reshape(3, 3)
    steps = np.linalg.inv(source.ijk_to_lps[:3, :3]) @ rotation @ target.ijk_to_lps[:3, :3]
    width = np.linalg.norm(steps, axis=1)  # extent of a target voxel along each source axis, in source voxels
    sigma = np.sqrt(np.maximum(width ** 2 - 1, 0)) / 2.355
    return [float(s) if w > 1.2 else 0.0 for s, w in zip(sigma, width, strict=True)][::-1]
