"""What a synthesis is asked for and what it gives back. No torch here."""

from dataclasses import dataclass, field

import numpy as np

from ..study.volume import Grid

#: Units of every synthetic image: these values stand for the 0.5 and 99.5 body percentiles.
INTENSITY_LOW, INTENSITY_HIGH = 0, 1000
#: Begins the warning that nothing acquired shows where contrast agent went.
ENHANCEMENT_GUESSED = "Enhancement in the synthetic"
#: Begins the warning that parts of GTVn were left out because the network is not sure of them.
NODES_LEFT_OUT = "Possible nodes of which the network is not sure were left out of GTVn"
#: The warning that nobody looked whether the inputs are unusual.
NOT_CHECKED = (
    "These weights do not know what images they learned from looked like. Of unusual images, only wrong sizes, cut-off "
    "heads, noise and gray values as in CT are noticed."
)


@dataclass(frozen=True)
class SynthesizedSequence:
    """One synthetic sequence on the reference grid.

    Attributes:
        sequence: id in the vocabulary.
        array: (k, j, i) int16; 0 and 1000 are the 0.5 and 99.5 percentiles of the body.
        uncertainty: (k, j, i) int16, predicted mean absolute error in the same units.
        prompt: the text that the decoder was given.
        mean_uncertainty: mean of ``uncertainty`` inside the body.
        calibrated: whether the uncertainty of this target, asked for in the usual words, was scaled on acquired images.
        interval_factors: half-widths, in units of ``uncertainty``, of the intervals of
            ``intervals.LEVELS``; empty where nobody told.
    """

    sequence: str
    array: np.ndarray
    uncertainty: np.ndarray
    prompt: str
    mean_uncertainty: float
    calibrated: bool = True
    interval_factors: tuple[float, ...] = ()


@dataclass(frozen=True)
class Segment:
    """One structure of the segmentation.

    Attributes:
        name: TG-263 name, e.g. "GTVp", "Parotid_L", "SpinalCord", "External".
        label: value in ``SegmentationResult.labelmap`` (0 for External, which is ``external``).
        color: (r, g, b) in 0..1.
        code: SNOMED CT code and meaning of category, type and (for paired organs) modifier, as
            {"category": [scheme, value, meaning], "type": [...], "modifier": [...] or None}.
    """

    name: str
    label: int
    color: tuple[float, float, float]
    code: dict


@dataclass(frozen=True)
class SegmentationResult:
    """Predicted structures on the reference grid.

    Attributes:
        labelmap: (k, j, i) uint8, exclusive labels; 0 is unlabelled.
        external: (k, j, i) bool, the patient's body.
        segments: what the labels mean, in order of label; External last.
    """

    labelmap: np.ndarray
    external: np.ndarray
    segments: tuple[Segment, ...]

    def mask(self, segment: Segment) -> np.ndarray:
        """(k, j, i) bool mask of one segment."""
        return self.external if segment.label == 0 else self.labelmap == segment.label


@dataclass(frozen=True)
class SynthesisResult:
    """The outcome of one run; everything lies on ``grid``.

    Attributes:
        grid: the study's reference grid (LPS, mm).
        sequences: the synthetic sequences in the order asked for.
        segmentation: predicted structures, or None when not asked for.
        sources: sequence ids used as input.
        model: {"name", "version", "sha256"} of the weights.
        device: where it ran, in words ("CPU, 2 threads, bfloat16").
        seconds: stage -> wall seconds.
        warnings: sentences for the user.
        unusual: those of them that say why an input is unlike what the weights learned from, so that nothing made from
            it can be relied on; empty when nothing was noticed, or when the weights cannot tell (a warning says so).
    """

    grid: Grid
    sequences: tuple[SynthesizedSequence, ...]
    segmentation: SegmentationResult | None
    sources: tuple[str, ...]
    model: dict
    device: str
    seconds: dict = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    unusual: tuple[str, ...] = ()
