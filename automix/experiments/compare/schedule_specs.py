"""Schedules named in configurations and on the command line."""

import dataclasses
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from automix.configuration.base import did_you_mean, scalar_of
from automix.errors import ConfigError
from automix.experiments.common.equal_schedules import training_hash
from automix.experiments.common.kept_files import check_whole
from automix.experiments.common.run_files import check_result
from automix.experiments.common.run_folder import finished_result
from automix.operator_info import OPERATOR_FACTS, Operator
from automix.random_streams import Stream, derived_seed
from automix.schedule import (
    Decision,
    Mixture,
    Schedule,
    constant_decisions,
    constant_schedule,
    equal_mixture,
    in_turn,
    linear_ramp,
    mix_then_off,
    random_schedule,
    strong_to_weak,
)
from automix.schedule_controls import marginal_matched, shuffled_before_end, shuffled_in_time
from envs.actions import ActionCodec
from envs.config import EnvironmentConfig

_NAMES = (
    "none",
    "portfolio",
    "finalists",
    "policy",
    "rlmix",
    "gate",
    "a2c",
    "constants",
    "random",
    "constant",
    "shuffled",
    "shuffled_before_end",
    "marginal_matched",
    "ramp",
    "mix_then_off",
    "mixture",
    "in_turn",
    "strong_to_weak",
)
_KINDS = "a schedule file, none, portfolio[:NAME], finalists:FOLDER, policy:FOLDER, "
_KINDS += "rlmix:FOLDER, rlmix:random[@FOLDER], gate:OPERATOR[:STRENGTH], a2c:OPERATOR[:STRENGTH], "
_KINDS += "constants, "
_KINDS += "random, "
_KINDS += "constant:OPERATOR[:STRENGTH[:PROBABILITY]], "
_KINDS += "mixture:OPERATOR[...]+..., mix_then_off:OPERATOR[...][+...][@OFF_FROM], "
_KINDS += "in_turn:OPERATOR[...]+...[@OFF_FROM], strong_to_weak:OPERATOR[@OFF_FROM], "
_KINDS += "ramp:OPERATOR, shuffled:FILE, shuffled_before_end:FILE or marginal_matched:FILE"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleEntry:
    """One row of a comparison."""

    name: str  # unique; its row in tables
    # The schedule of training run number i; the same for every i but for random, shuffled and
    # marginal-matched entries.
    schedule_for: Callable[[int], Schedule]
    # What decides instead, in closed loop: `policy:FOLDER`, or a description of another kind.
    policy: str | None = None
    # Other names of the same schedule.
    also: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Context:
    """Context in which descriptions are read."""

    environment: EnvironmentConfig
    seed: int
    named: Mapping[str, Schedule]

    def load(self, text: str) -> tuple[str, Schedule]:
        """Return the name and the schedule of a file, or of a named schedule."""
        if text in self.named:
            return text, self.named[text]
        path = Path(text)
        return _file_name(path), Schedule.load(path)


_DRAWN_FROM_FILES: Mapping[str, Callable[..., Schedule]] = MappingProxyType(
    {
        "shuffled": shuffled_in_time,
        "shuffled_before_end": shuffled_before_end,
        "marginal_matched": marginal_matched,
    }
)


def parse_entries(
    texts: Sequence[str],
    environment: EnvironmentConfig,
    *,
    seed: int,
    named: Mapping[str, Schedule] = MappingProxyType({}),
) -> list[ScheduleEntry]:
    """Return the entries that ``texts`` describe; equal names are kept once.

    Args:
        texts: paths of schedule files or descriptions, see `CompareConfig.schedules`.
        environment: decisions and number of segments of random schedules.
        seed: of the draws of random and shuffled schedules.
        named: schedules that a text may name where it would name a file.

    Raises:
        ConfigError: a description does not fit.
        ScheduleError: a file is missing or is not a schedule.
    """
    # In the order of the texts, which is that of the table: the first is the baseline.
    entries: dict[str, ScheduleEntry] = {}
    context = _Context(environment=environment, seed=seed, named=named)
    for text in texts:
        for entry in _parse(text, context):
            # `constants` holds `none` as well: what was named before is not trained twice.
            first = entries.setdefault(entry.name, entry)
            if not _is_same(first, entry):
                # Two files in folders of one name: neither is dropped, the second goes by its path.
                entries.setdefault(text, dataclasses.replace(entry, name=text))
    return list(entries.values())


def merge_equal(entries: Sequence[ScheduleEntry], *, num_runs: int) -> list[ScheduleEntry]:
    """Return one entry for all that train alike in each of ``num_runs`` training runs.

    It has the name of the first, and those of the others in ``also``.
    """
    merged: dict[Hashable, ScheduleEntry] = {}
    for entry in entries:
        # A shuffled constant is that constant, whatever is drawn.
        key: Hashable = entry.policy or tuple(
            training_hash(entry.schedule_for(index)) for index in range(num_runs)
        )
        first = merged.setdefault(key, entry)
        if first is not entry:
            # Finalists of a search bring names of their own, of which one may be there already.
            names = dict.fromkeys((*first.also, entry.name, *entry.also))
            names.pop(first.name, None)
            merged[key] = dataclasses.replace(first, also=tuple(names))
    return list(merged.values())


def build_schedule(text: str, environment: EnvironmentConfig, *, seed: int) -> Schedule:
    """Return the one schedule that ``text`` describes.

    Raises:
        ConfigError: the description does not fit, or means several schedules.
    """
    entries = parse_entries((text,), environment, seed=seed)
    if len(entries) != 1:
        raise ConfigError(f"{text}: expected the description of one schedule, got {len(entries)}")
    return entries[0].schedule_for(0)


def schedule_files(texts: Sequence[str], *, named: Collection[str] = ()) -> list[Path]:
    """Return the schedule files that ``texts`` name but for those in ``named``; some may lack."""
    # For the hash of a sweep's cell: it must change with the content of these files.
    files = []
    for text in texts:
        kind, _, argument = text.partition(":")
        file = argument if kind in _DRAWN_FROM_FILES else text
        if file not in named and (kind in _DRAWN_FROM_FILES or kind not in _NAMES):
            files.append(Path(file))
    return files


def _parse(text: str, context: _Context) -> list[ScheduleEntry]:
    kind, _, argument = text.partition(":")
    environment = context.environment
    # What is no description is a file: its name may be anything, so files come last.
    match kind, argument:
        case "none", "":
            entries = [_constant(Decision(operator=Operator.NONE))]
        case "portfolio", _:
            entries = _portfolio(argument)
        case "finalists", _:
            entries = _finalists(Path(argument))
        case (("policy" | "rlmix" | "gate" | "a2c"), _):
            entries = [_policy(text, kind, argument)]
        case "constants", "":
            entries = [_constant(choice) for choice in constant_decisions(environment.operators)]
        case "random", "":
            entries = [_random(environment, context.seed)]
        case "constant", _:
            entries = [_constant(_decision(argument, kind))]
        case (("ramp" | "mix_then_off" | "mixture" | "in_turn" | "strong_to_weak"), _):
            entries = [_fixed(text, _built(kind, argument, environment.num_segments))]
        case (("shuffled" | "shuffled_before_end" | "marginal_matched"), _):
            entries = [_drawn(kind, argument, context)]
        case _:
            entries = [_from_file(text, context)]
    return entries


def _built(kind: str, argument: str, num_segments: int) -> Schedule:
    """Return the schedule of a kind that is made of decisions alone."""
    before, off_from = _and_off(argument, default=0.75 if kind == "mix_then_off" else 0.875)
    match kind:
        case "mix_then_off":
            if (mixture := _mixture(before, kind)).probability == 0:
                raise ConfigError("schedules: expected an operator that mixes, got 'none'")
            return mix_then_off(mixture, off_from=off_from)
        case "in_turn":
            turns = [_decision(part, kind) for part in before.split("+")]
            return in_turn(turns, num_segments=num_segments, off_from=off_from)
        case "strong_to_weak":
            return strong_to_weak(_mixing(before), off_from=off_from)
        case "mixture":
            return constant_schedule(_mixture(argument, kind))
        case _:
            return linear_ramp(_mixing(argument), num_segments=num_segments)


def _constant(decision: Decision) -> ScheduleEntry:
    return _fixed(decision.label(), constant_schedule(decision))


def _portfolio(name: str) -> list[ScheduleEntry]:
    schedules = Schedule.portfolio()
    if name and name not in schedules:
        hint = did_you_mean(name, list(schedules))
        raise ConfigError(
            f"schedules: expected portfolio or portfolio:NAME of {', '.join(schedules)}, got "
            f"'portfolio:{name}'{hint}"
        )
    chosen = [name] if name else list(schedules)
    return [_fixed(one, schedules[one]) for one in chosen]


def _finalists(folder: Path) -> list[ScheduleEntry]:
    """Return the finalists of the search in ``folder``, the selected one first."""
    result = finished_result(folder) or {}
    if result.get("kind") != "search":
        raise ConfigError(
            f"schedules: expected finalists:FOLDER of a finished search, got '{folder}'"
        )
    rows = check_result(result, source=str(folder))["final"]
    check_whole(folder)
    return [
        dataclasses.replace(
            _fixed(row["name"], Schedule.from_plain(row.get("schedule"), source=str(folder))),
            also=tuple(row.get("also", ())),
        )
        for row in sorted(rows, key=lambda row: row["name"] != result["selected"])
    ]


def per_image_decision(text: str) -> Decision:
    """Return the decision behind ``gate:`` or ``a2c:``, about whose images a policy decides.

    Raises:
        ConfigError: it is none, or does not mix pairs of images of a batch.
    """
    kind, _, argument = text.partition(":")
    decision = _decision(argument, kind)
    facts = OPERATOR_FACTS[decision.operator]
    mixes_images = facts.mixes_pairs and not (facts.learns or facts.mixes_features)
    if not decision.mixes or not mixes_images:
        raise ConfigError(
            f"schedules: {text}: expected an operator that mixes pairs of images, got "
            f"{decision.operator.value}"
        )
    return decision


def _policy(text: str, kind: str, argument: str) -> ScheduleEntry:
    if kind in {"gate", "a2c"}:
        per_image_decision(text)
    elif not argument:
        raise ConfigError(f"schedules: expected {kind}:FOLDER of a search, got no folder")

    def refuse(index: int) -> Schedule:
        del index
        raise ConfigError(f"{text}: expected the description of a schedule, got a policy")

    return ScheduleEntry(name=text, schedule_for=refuse, policy=text)


def _fixed(name: str, schedule: Schedule) -> ScheduleEntry:
    return ScheduleEntry(name=name, schedule_for=lambda _: schedule)


def _random(environment: EnvironmentConfig, seed: int) -> ScheduleEntry:
    choices = ActionCodec(environment).choices()

    def draw(index: int) -> Schedule:
        # From the number of the run, not its seed: the schedule is independent of the run's noise.
        draw_seed = derived_seed(seed, Stream.POLICY, step=index)
        even = random_schedule(choices, num_segments=environment.num_segments, seed=draw_seed)
        return even.at_starts(environment.starts)

    return ScheduleEntry(name="random", schedule_for=draw)


def _drawn(kind: str, argument: str, context: _Context) -> ScheduleEntry:
    """Return an entry that draws from a given schedule, anew for each training run."""
    name, schedule = context.load(argument)
    builder = _DRAWN_FROM_FILES[kind]

    def draw(index: int) -> Schedule:
        return builder(schedule, seed=derived_seed(context.seed, Stream.POLICY, step=index))

    return ScheduleEntry(name=f"{kind.replace('_', '-')} {name}", schedule_for=draw)


def _exists(path: Path) -> bool:
    # A description may be longer than a name of a file can be.
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _from_file(text: str, context: _Context) -> ScheduleEntry:
    path = Path(text)
    # A missing *.json is a missing file; anything else is taken for a misspelt description.
    if text not in context.named and (not text or (path.suffix != ".json" and not _exists(path))):
        hint = did_you_mean(text.partition(":")[0], _NAMES)
        raise ConfigError(f"schedules: expected {_KINDS}, got {text!r}{hint}")
    return _fixed(*context.load(text))


def _file_name(path: Path) -> str:
    """Return a short name: `schedule.json` is called after the run it lies in."""
    return path.stem if path.stem != "schedule" else path.resolve().parent.name or path.stem


def _is_same(first: ScheduleEntry, second: ScheduleEntry) -> bool:
    if first.policy or second.policy:
        return first.policy == second.policy
    # Entries that draw have the same seed, so their first schedules tell them apart.
    return first.schedule_for(0).decision_hash() == second.schedule_for(0).decision_hash()


def _operator(name: str) -> Operator:
    names = [operator.value for operator in Operator]
    if name not in names:
        raise ConfigError(
            f"schedules: expected an operator among {', '.join(names)}, got {name!r}"
            f"{did_you_mean(name, names)}"
        )
    return Operator(name)


def _mixing(name: str) -> Operator:
    """Return the operator of that name; ``none`` has nothing to ramp or to switch off."""
    if (operator := _operator(name)) is Operator.NONE:
        raise ConfigError("schedules: expected an operator that mixes, got 'none'")
    return operator


def _decision(text: str, kind: str) -> Decision:
    name, *numbers = text.split(":")
    # Checked here: zip below would drop a third number silently.
    if len(numbers) > 2:
        raise ConfigError(f"schedules: expected OPERATOR[:STRENGTH[:PROBABILITY]], got {text!r}")
    # Numbers are read as in YAML, so that the messages are those of a configuration.
    values = dict(zip(("strength", "probability"), map(scalar_of, numbers), strict=False))
    return Decision.from_mapping(
        {"operator": _operator(name), **values}, source=f"schedules: {kind}:{text}"
    )


def _mixture(text: str, kind: str) -> Mixture:
    """Return the mixture of decisions joined by ``+``, equally likely where none has a weight."""
    decisions = [_decision(part, kind) for part in text.split("+")]
    if not any(part.count(":") == 2 for part in text.split("+")):
        return equal_mixture(decisions)
    plain = [decision.model_dump(mode="json") for decision in decisions]
    return Mixture.from_mapping({"decisions": plain}, source=f"schedules: {kind}:{text}")


def _and_off(text: str, *, default: float) -> tuple[str, float]:
    """Return what stands before ``@``, and the fraction behind it from which nothing is mixed."""
    before, at, number = text.partition("@")
    off_from = scalar_of(number) if at else default
    if not isinstance(off_from, float) or not 0 < off_from < 1:
        raise ConfigError(f"schedules: expected a fraction in (0, 1) after @, got {number!r}")
    return before, off_from


def make(text: str, path: Path, environment: EnvironmentConfig | None = None) -> Path:
    """Write the schedule that ``text`` describes; return where it was written."""
    schedule = build_schedule(text, environment or EnvironmentConfig(), seed=0)
    provenance = {"origin": f"automix schedule make {text}"}
    schedule.model_copy(update={"provenance": provenance}).save(path)
    return path
