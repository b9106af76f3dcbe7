"""One job from volumes to result: the same call in this process and in the worker."""

from collections.abc import Callable, Mapping, Sequence

from ..errors import Cancelled
from ..study.build import build_study
from ..study.study import Study
from ..study.volume import Volume
from .result import SynthesisResult

#: Share of the progress that registering and normalizing take.
_STUDY_SHARE = 0.2


class InProcess:
    """Runs jobs in this process, for scripts and tests; ``process.WorkerProcess`` does the same in another one.

    Args:
        make_synthesizer: device -> object with the ``run`` of ``Synthesizer``; by default that class with the
            weights that ship. Called once for a device, when its first study is ready.
    """

    def __init__(self, make_synthesizer: Callable[[str | None], object] | None = None):
        self._make = make_synthesizer or _shipped
        self._made: dict = {}

    def compute(
        self,
        volumes: Mapping[str, Volume],
        targets: Sequence[str],
        reference: str | None = None,
        segment: bool = True,
        device: str | None = None,
        on_progress: Callable[[float, str], None] | None = None,
        cancel: Callable[[], bool] | None = None,
    ) -> tuple[Study, SynthesisResult]:
        """Register, normalize and synthesize.

        Args:
            volumes: sequence id -> image as it was acquired.
            device: as for ``Synthesizer``.

        Raises what ``build_study`` and ``Synthesizer.run`` raise.
        """

        def part(low: float, high: float):
            if on_progress is None:
                return None
            return lambda fraction, stage: on_progress(low + (high - low) * fraction, stage)

        study = build_study(volumes, reference=reference, on_progress=part(0, _STUDY_SHARE), cancel=cancel)
        if cancel is not None and cancel():
            raise Cancelled()
        result = self.synthesizer(device).run(
            study, tuple(targets), segment=segment, on_progress=part(_STUDY_SHARE, 1), cancel=cancel
        )
        return study, result

    def synthesizer(self, device: str | None):
        """The one that serves this device; the others are dropped, one model in memory is enough."""
        if device not in self._made:
            self._made = {device: self._make(device)}
        return self._made[device]

    def close(self) -> None:
        """Give back the memory of the model."""
        self._made = {}


def _shipped(device: str | None):
    from .synthesizer import Synthesizer

    return Synthesizer(device=device)
