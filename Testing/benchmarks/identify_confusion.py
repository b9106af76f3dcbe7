"""Prints how series are told apart: confusion matrices over simulated headers and, where they are, the public ones.

    python Testing/benchmarks/identify_confusion.py
"""

import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "Testing")]

from truth_table import labeled_headers, public_data  # noqa: E402
from vendor_habits import simulated_headers  # noqa: E402

from NPCSynthLib.study.headers import frames_of, header_facts, read_header  # noqa: E402
from NPCSynthLib.study.identify import SURE_REFUSAL, identify  # noqa: E402
from NPCSynthLib.study.scan import series_name  # noqa: E402
from NPCSynthLib.vocabulary import load_sequences  # noqa: E402


def answer(facts: dict) -> str:
    """The sequence, "refused" or "not sure"."""
    told = identify(facts, series_name(facts))
    return told.sequence or ("refused" if told.confidence >= SURE_REFUSAL else "not sure")


def show(title: str, pairs: list[tuple[str, str]]) -> None:
    """Print rows of truth (sequence or kind of distractor) against columns of answers, and the two rates."""
    known = list(load_sequences())
    counts = Counter(pairs)
    columns = [c for c in [*known, "not sure", "refused"] if any(a == c for _, a in counts)]
    rows = sorted({t for t, _ in counts}, key=lambda t: (t not in known, known.index(t) if t in known else 0, t))
    print(f"\n{title}\n{'':16}" + "".join(f"{c:>9}" for c in columns))
    for row in rows:
        print(f"{row:16}" + "".join(f"{counts[row, c] or '.':>9}" for c in columns))
    usable = [(t, a) for t, a in pairs if t in known]
    others = [a for t, a in pairs if t not in known]
    right, unsure = sum(t == a for t, a in usable), sum(a == "not sure" for _, a in usable)
    print(f"usable: {right} right + {unsure} not sure of {len(usable)} ({(right + unsure) / len(usable):.1%}); "
          f"distractors accepted: {sum(a in known for a in others)} of {len(others)}")


def main() -> None:
    pairs = [(h.kind, answer(header_facts(h.dataset))) for h in simulated_headers()]
    show("Simulated headers (truth by row, answer by column)", pairs)
    folder = public_data("dicom_headers")
    if folder is None:
        print("\nThe public headers are not on this machine (NPCSYNTH_DATA).")
        return
    pairs = [(h.kind, answer(frames_of(read_header(h.path), h.path)[0].facts)) for h in labeled_headers(folder)]
    show("Public headers, labeled by reading them", pairs)


if __name__ == "__main__":
    main()
