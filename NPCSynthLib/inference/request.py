"""What a run is asked for. No torch here."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class SynthesisRequest:
    """One wish, the same for a check before a run and for the run, in this process and in the worker.

    Attributes:
        targets: ids of the sequences to make.
        reference: id of the source whose grid the results take; None for the best one.
        segment: whether to segment too.
        device: "auto", "cuda", "mps", "cpu" or None, as for ``Synthesizer``.
        prompts: target id -> free text instead of its canonical prompt.
        weights: a weights folder; None for those that the computer of the job was made with.
    """

    targets: tuple[str, ...]
    reference: str | None = None
    segment: bool = True
    device: str | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    weights: Path | None = None

    def to_dict(self) -> dict:
        """Plain JSON types; the weights folder as an absolute path."""
        values = asdict(self)
        return {**values, "weights": None if self.weights is None else str(Path(self.weights).resolve())}

    @classmethod
    def from_dict(cls, values: Mapping) -> "SynthesisRequest":
        """Inverse of :meth:`to_dict`."""
        weights = None if values["weights"] is None else Path(values["weights"])
        return cls(**{**values, "targets": tuple(values["targets"]), "weights": weights})
