"""The one call that does the work: ``Synthesizer().run(study, ["T1C", "T2FS"])``."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch

from ..errors import Cancelled, UsageError
from ..model.network import TextFeatures
from ..model.weights import LoadedModel, load_weights
from ..study.build import FULL_COVERAGE, build_study
from ..study.identify import identify
from ..study.study import Source, Study
from ..study.volume import Volume
from ..vocabulary import canonical_prompt, get_sequence
from . import preflight
from .device import Device, choose_device, out_of_memory, plan_batch
from .intervals import interval_factors
from .labels import SURE, to_segments, with_margin
from .preflight import Check
from .recognition import Recognition, recognize
from .result import ENHANCEMENT_GUESSED, INTENSITY_HIGH, NOT_CHECKED, SynthesisResult, SynthesizedSequence
from .slicing import CONTOUR_PIXEL_MM, Slicing
from .unusual import find_unusual, knows_usual
from .wording import check_wording

#: Farther than this outside the body there is air, and air is 0: nothing is synthesized there.
_MARGIN_MM = 5.0
_CLIP = 2.0  # like the training images, which are cut off at twice the 99.5 percentile


def _says_contrast(source: Source) -> bool:
    """Whether header or name of an image say that contrast agent was given."""
    said = identify(source.original.metadata, source.original.name).sequence
    return said is not None and get_sequence(said).contrast_agent


class Synthesizer:
    """Holds verified weights on a device; one instance serves any number of runs.

    Args:
        weights: a weights folder, or None for the shipped ones.
        device: "auto", "cuda", "mps", "cpu" or None for auto.

    Raises:
        WeightsError, UsageError: see ``load_weights`` and ``choose_device``.
    """

    def __init__(self, weights=None, device: str | None = None):
        self.loaded: LoadedModel = load_weights(weights)
        self.device, self._notes = choose_device(device)
        self._move(self.device)

    def _move(self, device: Device) -> None:
        self.loaded.model.to(device.torch, memory_format=torch.channels_last)

    @property
    def sequences(self) -> tuple[str, ...]:
        """Ids of the sequences that the weights were trained to make."""
        return tuple(self.loaded.manifest["prompts"])

    def run(
        self,
        study: Study,
        targets: Sequence[str],
        segment: bool = True,
        prompts: Mapping[str, str] | None = None,
        on_progress: Callable[[float, str], None] | None = None,
        cancel: Callable[[], bool] | None = None,
    ) -> SynthesisResult:
        """Make the targets, and the segmentation, from everything that the study has.

        Args:
            targets: sequence ids; none may be among the study's sources.
            prompts: free text instead of the canonical prompt of a target.
            on_progress: called with a fraction 0..1 and the stage in words.
            cancel: asked before every batch of slices and every target.

        Raises:
            UsageError: unknown target, or one that the study already has. Cancelled: ``cancel`` said so.
        """
        targets = self._check_targets(study, targets)
        prompts = dict(prompts or {})
        warnings = [*study.warnings, *self._notes, *self.loaded.manifest.get("notes", ())]
        warnings += self._guessed(study, targets)
        seconds = {}
        started = time.perf_counter()
        texts, wordings = {}, {}
        for target in targets:
            wordings[target] = prompts.get(target) or canonical_prompt(get_sequence(target))
            if prompts.get(target):
                warnings += check_wording(self.loaded, target, prompts[target])
            texts[target], unknown = self.loaded.text_features(wordings[target])
            if unknown:
                words = ", ".join(unknown)
                warnings.append(f"The model does not know these words of the prompt for {target}: {words}.")
            if target not in self.sequences:
                warnings.append(f"The model was never trained on {target}: what it makes is a guess from its words.")
        seconds["prompts"] = time.perf_counter() - started

        if on_progress:
            on_progress(0.0, "Looking at the sources")

        def compute(device: Device) -> tuple:
            began = time.perf_counter()
            seen, unusual = self._look(device, study, cancel)
            seconds["recognition"] = time.perf_counter() - began
            began = time.perf_counter()
            made = self._slices(device, study, targets, texts, segment, on_progress, cancel)
            seconds["synthesis"] = time.perf_counter() - began
            return seen, unusual, made, device

        seen, unusual, (means, scales, contours), device = self._where_it_fits(compute)
        doubts = [doubt for sequence, one in seen.items() if (doubt := one.contradiction(sequence))]
        if device is not self.device:
            doubts.append("The graphics memory was too small for this study, so it was computed on the CPU.")
        warnings = [*unusual, *warnings, *doubts, *([] if knows_usual(self.loaded) else [NOT_CHECKED])]

        started = time.perf_counter()
        sequences = []
        calibration = self.loaded.manifest.get("calibration", {})
        unchecked = [t for t in targets if t not in calibration]
        if unchecked:
            warnings.append(
                f"The uncertainty of {', '.join(unchecked)} was never checked on acquired images; the true error may "
                "be much larger."
            )
        self._clear_air(study, means)
        usual = [wordings[t] == canonical_prompt(get_sequence(t)) for t in targets]  # words that it was checked for
        factors = interval_factors(spread=self.loaded.manifest.get("patient_spread", 0.0))
        for n, target in enumerate(targets):
            uncertainty = self._calibrated(scales[n], target)
            inside = float(uncertainty[study.body].mean()) if study.body.any() else 0.0
            sequences.append(
                SynthesizedSequence(
                    target, means[n], uncertainty, wordings[target], inside, target in calibration and usual[n], factors
                )
            )
        segmentation = None
        if segment:
            if on_progress:
                on_progress(0.97, "Naming structures")
            segmentation, notes = to_segments(*contours, self.loaded.model.config.classes, study.body, study.grid)
            warnings += notes
        seconds["finishing"] = time.perf_counter() - started
        if on_progress:
            on_progress(1.0, "Done")
        return SynthesisResult(
            study.grid, tuple(sequences), segmentation, tuple(s.sequence for s in study.sources),
            self.loaded.identity, device.label, seconds, tuple(dict.fromkeys(warnings)), tuple(unusual),
        )  # fmt: skip

    def _where_it_fits(self, compute: Callable[[Device], tuple]) -> tuple:
        """``compute(device)`` on the device, or on the CPU when graphics memory is too small."""
        try:
            return compute(self.device)
        except RuntimeError as error:
            if self.device.torch.type == "cpu" or not out_of_memory(error):
                raise
        device = choose_device("cpu")[0]
        self._move(device)
        torch.cuda.empty_cache()
        try:
            return compute(device)
        finally:
            self._move(self.device)  # the next study may fit

    def _look(self, device: Device, study: Study, cancel=None) -> tuple[dict[str, Recognition], list[str]]:
        """What each source looks like, by its sequence, and sentences on those unlike the training images."""
        seen = {}
        for source in study.sources:
            if cancel and cancel():
                raise Cancelled()
            seen[source.sequence] = recognize(self.loaded, device, study, source)
        return seen, find_unusual(self.loaded, device, study, cancel)

    def check(
        self, study: Study, targets: Sequence[str], segment: bool = True, prompts: Mapping[str, str] | None = None
    ) -> list[Check]:
        """What ``run`` would do well or badly, in a few seconds; see ``preflight``. Nothing is made.

        Raises UsageError as ``run`` does; WeightsError: the files have changed since they were loaded.
        """
        targets = self._check_targets(study, targets)
        seen, unusual = self._where_it_fits(lambda device: self._look(device, study))
        return [
            preflight.check_device(self.device, self._notes),
            preflight.check_weights(self.loaded),
            *preflight.check_memory(self, study, len(targets), segment),
            *preflight.check_images(study),
            *preflight.check_sequences(study, seen),
            *preflight.check_looks(unusual, knows_usual(self.loaded)),
            *preflight.check_guesses(self._guessed(study, targets)),
            *preflight.check_prompts(self.loaded, targets, prompts or {}),
        ]

    def recognize(self, volume: Volume) -> Recognition:
        """What one image looks like, whatever its header says."""
        # The name is of no consequence: the network is not told it.
        study = build_study({self.sequences[0]: volume})
        return recognize(self.loaded, self.device, study, study.sources[0])

    def estimate(self, study: Study, target: str) -> tuple[np.ndarray, np.ndarray]:
        """One target and its uncertainty and nothing else, for evaluation: no segmentation, no look at the sources.

        Both are (k, j, i) int16 and the same as :meth:`run` gives.
        """
        target, = self._check_targets(study, [target])
        features, _ = self.loaded.text_features(canonical_prompt(get_sequence(target)))
        means, scales, _ = self._slices(self.device, study, [target], {target: features}, False, None, None)
        self._clear_air(study, means)
        return means[0], self._calibrated(scales[0], target)

    def predict(self, study: Study, target: str) -> np.ndarray:
        """The target of :meth:`estimate` as float32; 0 and 1 are the 0.5 and 99.5 percentiles of the body."""
        return self.estimate(study, target)[0].astype(np.float32) / INTENSITY_HIGH

    @staticmethod
    def _guessed(study: Study, targets: Sequence[str]) -> list[str]:
        """What nothing acquired tells about the targets."""
        enhanced = [t for t in targets if get_sequence(t).contrast_agent]
        acquired = [s for s in study.sources if get_sequence(s.sequence).contrast_agent]
        plain = [s for s in map(get_sequence, (s.sequence for s in study.sources))
                 if s.weighting == "T1" and not s.contrast_agent]  # fmt: skip
        t1 = [t for t in targets if get_sequence(t).weighting == "T1" and t not in enhanced]
        guesses = []
        if t1 and acquired and not plain:
            guesses.append(
                f"{ENHANCEMENT_GUESSED} {' and '.join(t1)} is a guess: every T1-weighted source was acquired with "
                "contrast agent, and of what that brightened some may be left. Never compare the two to judge "
                "enhancement."
            )
        if not enhanced:
            return guesses
        begins = f"{ENHANCEMENT_GUESSED} {' and '.join(enhanced)} is a guess"
        if not acquired:
            return [
                f"{begins}: no source was acquired with contrast agent. Never judge on it whether a lesion enhances."
            ]
        shown = float(np.any([s.inside[study.body] for s in acquired], axis=0).mean()) if study.body.any() else 1.0
        if shown < FULL_COVERAGE:
            guesses.append(
                f"{begins} outside of the acquired {' and '.join(s.sequence for s in acquired)} ({shown:.0%} of the "
                "body). Never judge on it there whether a lesion enhances."
            )
        by_word = [s.sequence for s in acquired if not _says_contrast(s)]
        if len(by_word) == len(acquired):
            guesses.append(
                f"{begins} unless contrast agent was given for the image used as {' and '.join(by_word)}: neither its "
                "header nor its name says so."
            )
        return guesses

    @staticmethod
    def _clear_air(study: Study, means: list[np.ndarray]) -> None:
        air = ~with_margin(study.body, study.grid, _MARGIN_MM)
        for mean in means:
            mean[air] = 0

    def _calibrated(self, scale: np.ndarray, target: str) -> np.ndarray:
        """Predicted mean absolute error; a target that was never checked gets the others' mean factor."""
        factors = self.loaded.manifest.get("calibration", {})
        usual = float(np.mean(list(factors.values()))) if factors else 1.0
        return (scale.astype(np.float32) * factors.get(target, usual)).clip(0, 32767).round().astype(np.int16)

    def decode(self, study: Study, texts: Sequence[TextFeatures]) -> list[np.ndarray]:
        """What the decoder makes of each text, as ``predict`` gives it, whatever sequence it may be: for evaluation."""
        named = {str(number): text for number, text in enumerate(texts)}
        means, _, _ = self._slices(self.device, study, list(named), named, False, None, None)
        self._clear_air(study, means)
        return [mean.astype(np.float32) / INTENSITY_HIGH for mean in means]

    @staticmethod
    def _check_targets(study: Study, targets: Sequence[str]) -> list[str]:
        targets = list(dict.fromkeys(get_sequence(t).id for t in targets))
        if not targets:
            raise UsageError("No sequence was asked for. Name at least one to synthesize.")
        have = {s.sequence for s in study.sources}
        both = [t for t in targets if t in have]
        if both:
            raise UsageError(
                f"{', '.join(both)} cannot be both a source and a target. Leave it out of the targets, or out of the "
                "sources if you want to see it synthesized."
            )
        return targets

    @torch.inference_mode()
    def _slices(self, device, study, targets, texts, segment, on_progress, cancel):
        """Run the model over all slices; arrays come back in the order of the study's grid."""
        model = self.loaded.model
        slicing = Slicing.plan(study.grid, model.config.stride)
        contouring = Slicing.plan(study.grid, model.config.stride, CONTOUR_PIXEL_MM)
        count = slicing.shape[0]
        images = [slicing.take(s.array) for s in study.sources]
        covered = [slicing.take(s.inside) for s in study.sources]
        if all(bool(s.inside.all()) for s in study.sources):
            covered = None
        encode = partial(self._encode, device, images, covered)
        means = [np.zeros(slicing.shape, np.int16) for _ in targets]
        scales = [np.zeros(slicing.shape, np.int16) for _ in targets]
        contours = (np.zeros(slicing.shape, np.uint8), np.zeros(slicing.shape, bool)) if segment else None
        texts = {target: features.to(device.torch) for target, features in texts.items()}
        source_text = self._source_text(study).to(device.torch)
        batch = plan_batch(device, model.config, len(images), *slicing.padded, count)
        first = 0
        while first < count:
            if cancel and cancel():
                raise Cancelled()
            rows = range(first, min(first + batch, count))
            try:
                self._batch(
                    device, slicing, contouring, rows, encode, source_text, texts, means, scales, contours, cancel
                )
            except RuntimeError as error:
                if batch == 1 or not out_of_memory(error):
                    raise
                torch.cuda.empty_cache()
                batch = max(1, batch // 2)
                continue
            first = rows.stop
            if on_progress:
                on_progress(0.95 * first / count, f"Synthesizing slice {first} of {count}")
        put = slicing.put
        return (
            [np.ascontiguousarray(put(m)) for m in means],
            [np.ascontiguousarray(put(s)) for s in scales],
            [np.ascontiguousarray(put(c)) for c in contours] if segment else None,
        )

    def _source_text(self, study: Study) -> torch.Tensor:
        """(1, S, W) pooled text of what each source is; zeros for a sequence that the weights have no words for."""
        pooled = []
        for source in study.sources:
            known = source.sequence in self.sequences
            prompt = self.loaded.manifest["prompts"][source.sequence] if known else None
            width = self.loaded.model.config.text_width
            pooled.append(self.loaded.text_features(prompt)[0].pooled if known else torch.zeros(1, width))
        return torch.stack(pooled, dim=1)

    def _encode(self, device, images, covered, slicing, rows):
        """Invariant features of some slices, by level, and where their sources exist; ``covered`` None: everywhere."""
        model = self.loaded.model
        n, s = len(rows), len(images)
        around = slicing.around(rows)
        stack = np.stack([image[around] for image in images], axis=1)  # (n, s, 3, rows, columns)
        stack = torch.from_numpy(stack).to(device.torch).clamp_(0, _CLIP).flatten(0, 1)
        stack = slicing.to_work(stack).contiguous(memory_format=torch.channels_last)
        if covered is not None:
            present = torch.from_numpy(np.stack([c[list(rows)] for c in covered], axis=1)).to(device.torch).float()
            present = slicing.to_work(present, "nearest") > 0.5
        else:
            present = torch.ones(n, s, dtype=torch.bool, device=device.torch)
        return model.group(model.encode(stack).invariant, n), present

    def _batch(
        self, device, slicing, contouring, rows, encode, source_text, texts, means, scales, contours, cancel
    ) -> None:
        model = self.loaded.model
        n = len(rows)
        with device.autocast():
            if contours is not None:
                classes, sure = contours
                features = encode(contouring, rows)
                logits = contouring.from_work(model.segment(*features))
                probability, likeliest = logits.softmax(dim=1).max(dim=1)
                classes[rows.start : rows.stop] = likeliest.byte().cpu().numpy()
                sure[rows.start : rows.stop] = (probability >= SURE).cpu().numpy()
            if contours is None or contouring != slicing:
                features = None  # never both in memory
                features = encode(slicing, rows)
            invariant, present = features
            for index, text in enumerate(texts.values()):
                if cancel and cancel():
                    raise Cancelled()
                mean, log_scale = model.decode(
                    invariant, present, text.select([0] * n), source_text.expand(n, -1, -1)
                )
                both = torch.cat([mean, log_scale.exp()], dim=1) * INTENSITY_HIGH
                both = slicing.from_work(both).clamp_(0, _CLIP * INTENSITY_HIGH).round().short().cpu().numpy()
                means[index][rows.start : rows.stop] = both[:, 0]
                scales[index][rows.start : rows.stop] = both[:, 1]
