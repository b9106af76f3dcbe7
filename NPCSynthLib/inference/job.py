"""One job from volumes to result: the same calls in this process and in the worker."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from ..errors import Cancelled, InputError, UsageError, WeightsError
from ..model.manifest import network_sha256, trained_sequences
from ..study.build import build_study
from ..study.study import Study
from ..study.volume import Volume
from .preflight import RED, Check, check_disk, worst
from .request import SynthesisRequest
from .result import SynthesisResult

#: Share of the progress that registering and normalizing take.
STUDY_SHARE = 0.2

#: What pre-flight calls what was refused.
_REFUSED = {InputError: "Images", UsageError: "Request", WeightsError: "Weights"}


class InProcess:
    """Runs jobs in this process, for scripts and tests; ``process.WorkerProcess`` does the same in another one.

    Args:
        make_synthesizer: weights folder, device -> object with the ``run`` and the ``check`` of ``Synthesizer``; by
            default that class. Called when the first study for these weights and this device is ready.
        weights: the weights folder for jobs that name none; None for the shipped ones.
        handover: the folder that results will be written to, when they are to cross to another process.
    """

    def __init__(
        self,
        make_synthesizer: Callable[[Path | None, str | None], object] | None = None,
        weights: Path | None = None,
        handover: Path | None = None,
    ):
        self._weights = weights
        self._make = make_synthesizer or _synthesizer
        self._handover = handover
        self._made: dict = {}
        self._study: tuple[str | None, Study] | None = None

    def sequences(self, weights: Path | None = None) -> tuple[str, ...]:
        """Ids of the sequences that jobs with these weights were trained to make, from the manifest alone.

        Raises WeightsError.
        """
        return trained_sequences(weights or self._weights)

    def network_sha256(self, weights: Path | None = None) -> str:
        """What results of jobs with these weights will say made them, from the manifest alone. Raises WeightsError."""
        return network_sha256(weights or self._weights)

    def preflight(
        self,
        volumes: Mapping[str, Volume],
        request: SynthesisRequest,
        on_progress: Callable[[float, str], None] | None = None,
        cancel: Callable[[], bool] | None = None,
    ) -> tuple[Check, ...]:
        """What can be told before ``compute`` is called with the same arguments; see ``preflight``.

        It registers and normalizes as ``compute`` does. The study is kept for the next job, so that a run that follows
        does not do it again; ``on_progress`` gets the fractions of such a run.

        Raises Cancelled; whatever else is wrong with the request, the images or the weights is a finding.
        """
        try:
            study = self._build(volumes, request.reference, on_progress, cancel)
            if cancel is not None and cancel():
                raise Cancelled()
            if on_progress is not None:
                on_progress(STUDY_SHARE, "Checking device, weights and images")
            synthesizer = self.synthesizer(request.device, request.weights)
            checks = synthesizer.check(study, request.targets, request.segment, request.prompts)
        except tuple(_REFUSED) as error:
            self._made = {}
            return (Check(_REFUSED[type(error)], RED, str(error)),)
        if self._handover is not None:
            checks.append(check_disk(study, len(request.targets), request.segment, self._handover))
        if worst(checks) == RED:
            self._made = {}  # weights that were exchanged are to be read anew
        return tuple(checks)

    def compute(
        self,
        volumes: Mapping[str, Volume],
        request: SynthesisRequest,
        on_progress: Callable[[float, str], None] | None = None,
        cancel: Callable[[], bool] | None = None,
    ) -> tuple[Study, SynthesisResult]:
        """Register, normalize and synthesize.

        Args:
            volumes: sequence id -> image as it was acquired.

        Raises what ``build_study`` and ``Synthesizer.run`` raise.
        """
        study = self._build(volumes, request.reference, on_progress, cancel)
        self._study = None
        if cancel is not None and cancel():
            raise Cancelled()
        result = self.synthesizer(request.device, request.weights).run(
            study, request.targets, segment=request.segment, prompts=request.prompts,
            on_progress=_part(on_progress, STUDY_SHARE, 1), cancel=cancel,
        )
        return study, result

    @property
    def device(self) -> str:
        """The device in words, once it is known."""
        return next((made.device.label for made in self._made.values()), "")

    def synthesizer(self, device: str | None, weights: Path | None = None):
        """The one that serves this device and these weights; others are dropped, one model in memory is enough."""
        key = weights or self._weights, device
        if key not in self._made:
            self._made = {}
            self._made = {key: self._make(*key)}
        return self._made[key]

    def close(self) -> None:
        """Give back the memory of the model and of what was checked last."""
        self._made, self._study = {}, None

    def _build(self, volumes, reference, on_progress, cancel) -> Study:
        """The study of the volumes; the one that was checked last when they are the same."""
        if self._study is None or not _is_of(*self._study, volumes, reference):
            self._study = None
            study = build_study(volumes, reference, on_progress=_part(on_progress, 0, STUDY_SHARE), cancel=cancel)
            self._study = reference, study
        return self._study[1]


def _synthesizer(weights: Path | None, device: str | None):
    from .synthesizer import Synthesizer  # PyTorch is read when the first job is ready for it

    return Synthesizer(weights, device)


def _part(on_progress, low: float, high: float):
    if on_progress is None:
        return None
    return lambda fraction, stage: on_progress(low + (high - low) * fraction, stage)


def _is_of(wanted: str | None, study: Study, volumes: Mapping[str, Volume], reference: str | None) -> bool:
    """Whether ``study``, for which the reference ``wanted`` was asked, was built from just these volumes."""
    known = {source.sequence: source.original for source in study.sources}
    return wanted == reference and list(known) == list(volumes) and all(
        known[sequence] is volume or _equal(known[sequence], volume) for sequence, volume in volumes.items()
    )


def _equal(one: Volume, other: Volume) -> bool:
    return (
        one.name == other.name
        and one.grid.matches(other.grid, 0)
        and one.metadata.keys() == other.metadata.keys()
        and all(np.array_equal(value, other.metadata[key]) for key, value in one.metadata.items())
        and one.array.dtype == other.array.dtype
        and np.array_equal(one.array, other.array)
    )
