"""Reads thousands of damaged folders, each in a process that may die, and prints what came of them.

    python Testing/benchmarks/fuzz_reader.py [cases] [first seed]
"""

import json
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: A case that is not over by then hangs; generous, as other programs may want the processor.
WALL_LIMIT_S = 300


def worker(first: int, last: int) -> None:
    """Run the cases and print one line of JSON for each, before it starts and after."""
    sys.path[:0] = [str(ROOT), str(ROOT / "Testing")]
    from dataclasses import asdict

    from fuzzing import good_folders, run

    _limit_memory()
    good_folders()
    for seed in range(first, last):
        print(json.dumps({"start": seed}), flush=True)
        with tempfile.TemporaryDirectory() as name:
            print(json.dumps({"done": seed} | asdict(run(seed, Path(name)))), flush=True)


def _limit_memory() -> None:
    """A case that asks for more than 8 GiB fails instead of taking the machine with it."""
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))


def main() -> int:
    cases = int(sys.argv[1]) if len(sys.argv) > 1 else 2400
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    outcomes, problems, seed = [], [], first
    while seed < first + cases:
        process = subprocess.Popen(
            [sys.executable, __file__, "--worker", str(seed), str(first + cases)], stdout=subprocess.PIPE, text=True)
        running, alarm = seed, _alarm(process)
        for line in process.stdout:
            alarm.cancel()
            alarm = _alarm(process)
            message = json.loads(line)
            if "start" in message:
                running = message["start"]
                continue
            outcomes.append(message)
            if message["problem"]:
                problems.append(f"seed {running} ({message['mutation']}): {message['problem']}")
                print(problems[-1], flush=True)
            running += 1
        alarm.cancel()
        if process.wait() != 0 or running < first + cases:
            problems.append(f"seed {running}: the process ended with {process.returncode} (crash or hang)")
            print(problems[-1], flush=True)
            running += 1
        seed = running
    report(outcomes, problems, cases)
    return 1 if problems else 0


def _alarm(process) -> threading.Timer:
    alarm = threading.Timer(WALL_LIMIT_S, process.kill)
    alarm.daemon = True
    alarm.start()
    return alarm


def report(outcomes: list, problems: list, cases: int) -> None:
    seconds, memory = [o["seconds"] for o in outcomes], [o["memory"] / 2**20 for o in outcomes]
    answers = Counter(o["answer"] for o in outcomes)
    actions = Counter(o["mutation"].split(": ")[1].split()[0].strip("_") for o in outcomes)
    print(f"{cases} damaged folders, {len(problems)} broken promises (crash, hang, memory, unclear words)")
    print("read_folder: " + ", ".join(f"{count} {answer}" for answer, count in answers.most_common()))
    print("damage: " + ", ".join(f"{name} {count}" for name, count in actions.most_common()))
    if outcomes:
        print(f"longest {max(seconds):.2f} s of processor time, mean {sum(seconds) / len(seconds):.3f} s; "
              f"most memory {max(memory):.0f} MiB above the start of a case")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(int(sys.argv[2]), int(sys.argv[3]))
    else:
        sys.exit(main())
