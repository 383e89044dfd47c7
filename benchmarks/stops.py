"""A campaign of stops: commands of a tiny project are stopped at random moments, and go on, until they are done.

`stopped_command` says how a command is stopped and what a stop must not do. After every round the project must be what
the commands make without a stop.

A journal in the folder has a line for every stop and every round. A campaign that was interrupted goes on with the
round it was in. Moments are drawn by seed; what a moment meets depends on the machine.
"""

import json
import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random

from benchmarks import Parser, Result, report, run
from benchmarks.stopped_command import Command, Stop, finish, stop
from benchmarks.stopped_project import differences, make_project
from imputune.errors import UserError
from imputune.runtime.console import print_table, say

JOURNAL = "journal.jsonl"
HEADS = "artifacts/synthetic/heads/in_hospital_death/csai"
COMMANDS = (
    Command(("extract", "synthetic"), 1),
    Command(("folds",), 1),
    Command(("pretrain",), 4, "artifacts/synthetic/imputers/csai", "pretrain-csai"),
    Command(("finetune",), 3, f"{HEADS}/mlp2-frozen-hidden-plateau", "finetune-csai-mlp2-frozen-hidden-plateau"),
    Command(("grid", "--head", "mlp5", "--schedule", "plateau"), 3),
    Command(("promote",), 2),
)
KINDS = (
    ("SIGKILL", "command"),
    ("SIGKILL", "group"),
    ("SIGKILL", "worker"),
    ("SIGTERM", "command"),
    ("SIGTERM", "group"),
    ("SIGINT", "command"),
    ("SIGINT", "group"),
    ("SIGHUP", "command"),
    ("SIGHUP", "group"),
    ("SIGTERM twice", "command"),
)


class Campaign(Result):
    """The outcome of a campaign."""

    stops: int
    rounds: int
    stops_by_signal: dict[str, int]
    stops_by_command: dict[str, int]
    longest_seconds: dict[str, float]
    exit_codes: dict[str, int]
    problems: tuple[str, ...]


class Journal:
    """The campaign's folder and its journal: a line for each stop and each finished round."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / JOURNAL

    def lines(self) -> list[dict[str, object]]:
        """Return what was written; a line that was cut off is left out."""
        found = []
        for line in self.path.read_text().splitlines() if self.path.exists() else []:
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found

    def write(self, content: dict[str, object]) -> None:
        """Add a line, after one that was cut off too."""
        with self.path.open("a+b") as file:
            cut_off = file.tell() and self.path.read_bytes()[-1:] != b"\n"
            file.write(b"\n" * bool(cut_off) + json.dumps(content).encode() + b"\n")


def reference_lives(journal: Journal, commands: Sequence[Command]) -> list[float]:
    """Run the commands without a stop, once in a campaign; return the seconds of each."""
    for line in journal.lines():
        if "lives" in line:
            return [float(each) for each in line["lives"]]  # type: ignore[attr-defined]
    reference = journal.folder / "reference"
    shutil.rmtree(reference, ignore_errors=True)
    make_project(reference)
    lives = [finish(reference, command) for command in commands]
    journal.write({"lives": lives})
    return lives


def stop_until_done(
    project: Path, command: Command, life: float, draws: Random, count: int, journal: Journal
) -> list[Stop]:
    """Stop a command up to `count` times, each time after going on, and then let it end."""
    stops: list[Stop] = []
    for _ in range(count):
        kind = draws.choice(KINDS)
        made = stop(project, command, kind, draws.uniform(0, life))
        if made is None:
            return stops
        stops.append(made)
        journal.write({"stop": asdict(made)})
        if made.problems:
            log = journal.folder / f"problem-{len(journal.lines())}.stderr"
            shutil.copy(project.parent / f"{project.name}.stderr", log)
            say(f"{made.command}, {made.kind} after {made.moment:.2f} s: {'; '.join(made.problems)} ({log})")
        if made.done:
            return stops
    finish(project, command)
    return stops


def campaign(folder: Path, stops: int, seed: int, commands: Sequence[Command] = COMMANDS) -> Campaign:
    """Make so many stops, or go on with a campaign in the folder; return what came of it."""
    folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(folder)
    lives = reference_lives(journal, commands)
    rounds = [line for line in journal.lines() if "round" in line]
    made = [Stop(**each) for line in rounds for each in line["stops"]]  # type: ignore[attr-defined]
    problems = [str(each) for line in rounds for each in line["problems"]]  # type: ignore[attr-defined]
    number = len(rounds)
    while len(made) < stops:
        draws = Random(f"{seed}-{number}")
        project = folder / f"round-{number}"
        shutil.rmtree(project, ignore_errors=True)
        make_project(project)
        ours: list[Stop] = []
        for command, life in zip(commands, lives, strict=True):
            count = min(command.share, stops - len(made) - len(ours))
            ours += stop_until_done(project, command, life, draws, count, journal)
        found = [f"{each.command}, {each.kind}: {problem}" for each in ours for problem in each.problems]
        found += [f"round {number}: {problem}" for problem in differences(project, folder / "reference")]
        journal.write({"round": number, "stops": [asdict(each) for each in ours], "problems": found})
        made, problems, number = [*made, *ours], [*problems, *found], number + 1
        say(f"{len(made)} of {stops} stops, {len(problems)} problems")
        if not found:
            shutil.rmtree(project)
    return _summary(made, number, problems)


def _summary(stops: list[Stop], rounds: int, problems: list[str]) -> Campaign:
    longest: dict[str, float] = defaultdict(float)
    for each in stops:
        longest[each.kind] = max(longest[each.kind], each.seconds)
    return Campaign(
        stops=len(stops),
        rounds=rounds,
        stops_by_signal=dict(Counter(each.kind for each in stops)),
        stops_by_command=dict(Counter(each.command for each in stops)),
        longest_seconds=dict(longest),
        exit_codes=dict(Counter(str(each.exit_code) for each in stops)),
        problems=tuple(problems),
    )


def _show(campaign: Campaign) -> None:
    kinds = sorted(campaign.stops_by_signal.items())
    lines = [(kind, str(count), f"{campaign.longest_seconds[kind]:.1f}") for kind, count in kinds]
    print_table(f"{campaign.stops} stops in {campaign.rounds} rounds", ("signal", "stops", "longest end, s"), lines)
    by_command = [(name, str(count)) for name, count in campaign.stops_by_command.items()]
    print_table("By command", ("command", "stops"), by_command)
    for problem in campaign.problems or ("no problem",):
        say(problem)


def main() -> None:
    """Read the options and run the campaign; exit code 1 if there were problems."""
    parser = Parser("benchmarks.stops", "Stop commands at random moments, and compare what they come to.")
    parser.add_argument("--stops", type=int, default=200, help="number of stops (default: 200)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments (default: 1)")
    parser.add_argument("--folder", type=Path, required=True, help="folder to work in; a campaign in it goes on")
    options = parser.parse_args()
    if options.stops < 1:
        raise UserError(f"--stops must be 1 or more, got {options.stops}")
    done = campaign(options.folder.resolve(), options.stops, options.seed)
    report(done, _show, options.json)
    if done.problems:
        sys.exit(1)


if __name__ == "__main__":
    run(main)
