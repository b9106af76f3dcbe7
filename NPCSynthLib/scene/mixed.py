"""Images to look at for a while: what an acquired and a synthetic volume make together, and maps of errors in the body.

They are synthetic in part, so they are named and marked as synthetic. They are not saved with the scene and are no
results: no export takes them.
"""

import numpy as np

from ..errors import InputError
from ..inference.result import INTENSITY_HIGH, INTENSITY_LOW
from ..study.align import resample
from ..study.normalize import body_mask, percentiles
from .matrices import ijk_to_ras
from .results import add_image
from .transaction import scene_transaction
from .volumes import node_to_world, volume_from_node

#: Side of the squares of a checkerboard.
SQUARE_MM = 30.0


def add_difference(scene, acquired, synthetic):
    """Volume node of the absolute difference, on the synthetic image's grid and in its units; 0 outside the body.

    The acquired image is put on the synthetic one's scale (0 and 1000 are the 0.5 and 99.5 percentiles of its own body)
    and, where the grids differ, resampled. It is shown in the colors and on the scale of the uncertainty, which is the
    predicted mean of this very quantity.

    Args:
        acquired, synthetic: vtkMRMLScalarVolumeNode.

    Raises InputError when an image is empty or lies under a non-linear transform, or when the two do not overlap.
    """
    real, inside, made = _in_common(acquired, synthetic)
    body = body_mask(real, _spacing(synthetic)) & inside
    return _add(scene, synthetic, f"{_what(synthetic)} difference", np.where(body, np.abs(made - real), 0), True)


def add_checkerboard(scene, acquired, synthetic):
    """Volume node of squares that are acquired and synthetic by turns, on the synthetic image's grid and in its units.

    Arguments and errors as of ``add_difference``. Outside the acquired image's field of view all is synthetic.
    """
    real, inside, made = _in_common(acquired, synthetic)
    tiles = [
        np.arange(count) // max(1, round(SQUARE_MM / mm))
        for count, mm in zip(made.shape, _spacing(synthetic)[::-1], strict=True)
    ]
    turn = (tiles[0][:, None, None] + tiles[1][None, :, None] + tiles[2][None, None, :]) % 2 == 0
    return _add(scene, synthetic, f"{_what(synthetic)} checkerboard", np.where(turn & inside, real, made), False)


def add_error_map(scene, image, uncertainty):
    """Volume node of the predicted error inside the image's body, 0 outside, on its grid and in its units.

    Args:
        image, uncertainty: the vtkMRMLScalarVolumeNodes of one synthetic sequence.

    Raises InputError when one of them is empty or was moved away from the other.
    """
    made, error = (volume_from_node(node, copy=False) for node in (image, uncertainty))
    if not made.grid.matches(error.grid, tolerance_mm=0.01):
        raise InputError(
            f'"{uncertainty.GetName()}" was moved or resampled and no longer lies on "{image.GetName()}". '
            "Undo that, or run again."
        )
    body = body_mask(made.array, made.grid.spacing)
    return _add(scene, image, f"{_what(image)} uncertainty in the body", np.where(body, error.array, 0), True)


def display_range(node) -> tuple[float, float]:
    """The 0.5 and 99.5 percentiles of a volume node's body, in its own units: what is shown black and white."""
    volume = volume_from_node(node, copy=False)
    return percentiles(volume.array, body_mask(volume.array, volume.grid.spacing))


def _in_common(acquired, synthetic):
    """(acquired in the synthetic image's units, where it has values, synthetic) on the synthetic image's grid.

    float32, bool and float32, all (k, j, i).
    """
    real, made = (volume_from_node(node, node_to_world(node), copy=False) for node in (acquired, synthetic))
    low, high = percentiles(real.array, body_mask(real.array, real.grid.spacing))
    array, inside = resample(real, made.grid)
    if not inside.any():
        raise InputError(
            f'"{acquired.GetName()}" and "{synthetic.GetName()}" do not overlap, so there is nothing to compare. '
            "Choose the acquired volume of the same patient and position in the study table."
        )
    scaled = (array - np.float32(low)) / np.float32(high - low)
    return scaled * np.float32(INTENSITY_HIGH - INTENSITY_LOW) + INTENSITY_LOW, inside, made.array.astype(np.float32)


def _add(scene, synthetic, what: str, array: np.ndarray, as_error: bool):
    limits = np.iinfo(np.int16)
    with scene_transaction(scene):
        node = add_image(
            scene, what, np.clip(np.rint(array), limits.min, limits.max).astype(np.int16), ijk_to_ras(synthetic),
            uncertainty=as_error,
        )  # fmt: skip
        node.SetAndObserveTransformNodeID(synthetic.GetTransformNodeID())
        node.SetAttribute("NPCSynth.Synthetic", "YES")
        node.SetSaveWithScene(False)
        node.GetDisplayNode().SetSaveWithScene(False)
    return node


def _what(synthetic) -> str:
    return synthetic.GetName().replace("(synthetic)", "").strip()


def _spacing(node) -> np.ndarray:
    return np.array(node.GetSpacing())
