"""Schedule files that are wrong."""

import json

from tests.cli.bad_commands import GOOD_SCHEDULE
from tests.cli.mistake import BadInput, bad_words


def bad_schedule(name: str, content: str | bytes, message: str) -> BadInput:
    return BadInput(
        name=f"schedule: {name}",
        argv="replay bad.json",
        files={"bad.json": content},
        message=f"bad.json{message}",
    )


def schedule_text(*segments: object, **others: object) -> str:
    values = {"format": "automix-schedule", "version": 1, "segments": segments} | others
    return json.dumps(values)


def segment(start: float = 0.0, **decision: object) -> dict[str, object]:
    return {"start": start, "decision": {"operator": "mixup"} | decision}


def bad_mixture(name: str, mixture: object, message: str, **others: object) -> BadInput:
    """Return a schedule of version 2 with one segment, which ``automix schedule show`` refuses."""
    wrong = {"start": 0.0, "mixture": mixture} | others
    return BadInput(
        name=f"mixture: {name}",
        argv="schedule show bad.json",
        files={"bad.json": schedule_text(wrong, version=2)},
        message=f"bad.json: segments.0{message}",
    )


def weighted(operator: str, probability: object) -> dict[str, object]:
    return {"operator": operator, "strength": 1.0, "probability": probability}


HALVES = [weighted("cutmix", 0.5), weighted("mixup", 0.5)]
NINE = [{"operator": "mixup", "strength": 0.1 * n, "probability": 0.1} for n in range(1, 10)]
MIXTURES = [
    bad_mixture(
        "more than every batch",
        [*HALVES, weighted("fmix", 1e-6)],
        ".mixture: expected probabilities of at most 1 together, got 1.000001",
    ),
    bad_mixture("empty", [], ".mixture: expected at least 1 item, got []"),
    bad_mixture(
        "a decision twice",
        [HALVES[0], HALVES[0]],
        ".mixture: expected each operator and strength once, got cutmix 1 twice",
    ),
    bad_mixture(
        "none as a part",
        [HALVES[0], {"operator": "none", "probability": 0.5}],
        ".mixture: expected operators that mix, got none; batches are left as they are where the "
        "probabilities are less than 1 together",
    ),
    bad_mixture(
        "a negative weight",
        [HALVES[0], weighted("mixup", -0.5)],
        ".mixture.1.probability: expected greater than or equal to 0, got -0.5",
    ),
    BadInput(
        name="mixture: a weight that is not a number",
        argv="schedule show bad.json",
        files={
            "bad.json": schedule_text({"start": 0, "mixture": [weighted("mixup", float("nan"))]})
        },
        message="bad.json: expected a JSON schedule, got: NaN, which is not a number",
    ),
    bad_mixture(
        "an unknown operator",
        [HALVES[0], weighted("mixupp", 0.5)],
        ".mixture.1.operator: expected 'none',... got 'mixupp' (did you mean 'mixup'?)",
    ),
    bad_mixture(
        "a weight of another type",
        [HALVES[0], weighted("mixup", "0.5")],
        ".mixture.1.probability: expected a number, got '0.5'",
    ),
    bad_mixture("no list", HALVES[0], ".mixture: expected a list, got {..."),
    bad_mixture(
        "a decision beside it",
        HALVES,
        ".decision: expected one of start, mixture, got the unknown key 'decision'",
        decision=HALVES[0],
    ),
    BadInput(
        name="mixture: a decision instead",
        argv="schedule show bad.json",
        files={"bad.json": schedule_text(segment(), version=2)},
        message="bad.json: segments.0.mixture: expected a value, got nothing (and 1 more)",
    ),
    BadInput(
        name="mixture: in version 1",
        argv="schedule show bad.json",
        files={"bad.json": schedule_text({"start": 0, "mixture": HALVES})},
        message="bad.json: segments.0.decision: expected a value, got nothing (and 1 more)",
    ),
    bad_mixture(
        "a hundred thousand decisions",
        [{"operator": "fmix"}] * 100_000,
        ".mixture: expected at most 32 items, got [...",
    ),
    BadInput(
        name="mixture: many decisions in many segments",
        argv="schedule show bad.json",
        files={
            "bad.json": schedule_text(
                *({"start": index / 2000, "mixture": NINE} for index in range(2000)), version=2
            ).replace(" ", "")
        },
        message="bad.json: expected at most 16000 decisions in all, got 18000",
    ),
    BadInput(
        name="mixture: a version that is text",
        argv="schedule show bad.json",
        files={"bad.json": schedule_text({"start": 0, "mixture": HALVES}, version="2")},
        message="bad.json: version: expected 1 or 2, got '2'",
    ),
]

SCHEDULES = [
    *MIXTURES,
    bad_words(
        "a schedule that is not there",
        "replay nowhere.json",
        "nowhere.json: expected a readable file, got: no such file or directory",
    ),
    BadInput(
        name="schedule: a folder",
        argv="replay bad.json",
        files={"bad.json": None},
        message="bad.json: expected a readable file, got: is a directory",
    ),
    bad_schedule("empty", "", ": expected a JSON schedule, got: Expecting value..."),
    bad_schedule("YAML", "seed: 1", ": expected a JSON schedule, got: Expecting value..."),
    bad_schedule(
        "cut off", GOOD_SCHEDULE[:-10], ": expected a JSON schedule, got: Unterminated string..."
    ),
    bad_schedule("a list", "[]", ": expected a JSON object, got []"),
    bad_schedule("another file", "{}", ": format: expected 'automix-schedule', got nothing"),
    bad_schedule(
        "another format",
        '{"format": ["automix-schedule"]}',
        ": format: expected 'automix-schedule', got ['automix-schedule']",
    ),
    bad_schedule(
        "a later version",
        schedule_text(segment(), version=3, extra=1),
        ": version: expected 1 or 2, got 3",
    ),
    bad_schedule(
        "a version of another type",
        schedule_text(version=True),
        ": version: expected 1 or 2, got true",
    ),
    bad_schedule(
        "no version", '{"format": "automix-schedule"}', ": version: expected 1 or 2, got nothing"
    ),
    bad_schedule("no segments", schedule_text(), ": segments: expected at least 1 item, got []"),
    bad_schedule(
        "segments that are none",
        schedule_text(segments={}),
        ": segments: expected a list, got {}",
    ),
    bad_schedule(
        "too many segments",
        schedule_text(segments=[0] * 10_001),
        ": segments: expected at most 10000, got 10001",
    ),
    bad_schedule(
        "unknown operator",
        schedule_text(segment(operator="mixupp")),
        ": segments.0.decision.operator: expected 'none',... got 'mixupp' (did you mean 'mixup'?)",
    ),
    bad_schedule(
        "no operator",
        schedule_text({"start": 0, "decision": {}}),
        ": segments.0.decision.operator: expected a value, got nothing",
    ),
    bad_schedule(
        "a key too many",
        schedule_text(segment(chance=1)),
        ": segments.0.decision.chance: expected one of operator, strength, probability, "
        "got the unknown key 'chance'",
    ),
    bad_schedule(
        "a late start",
        schedule_text(segment(0.1)),
        ": expected the first segment to start at 0, got 0.1",
    ),
    bad_schedule(
        "starts that do not increase",
        schedule_text(segment(), segment(0.5), segment(0.5)),
        ": expected starts that increase, got 0.5 after 0.5",
    ),
    bad_schedule(
        "a start at the end",
        schedule_text(segment(), segment(1.0)),
        ": segments.1.start: expected less than 1, got 1.0",
    ),
    bad_schedule(
        "a start that is text",
        schedule_text({"start": "0", "decision": {"operator": "mixup"}}),
        ": segments.0.start: expected a number, got '0'",
    ),
    bad_schedule(
        "a strength out of range",
        schedule_text(segment(operator="saliencymix", strength=0)),
        ": segments.0.decision: expected a strength in [0.01, 10] for saliencymix...",
    ),
    bad_schedule(
        "a probability out of range",
        schedule_text(segment(probability=1.5)),
        ": segments.0.decision.probability: expected less than or equal to 1, got 1.5",
    ),
    bad_schedule(
        "provenance that is not text",
        schedule_text(segment(), provenance={"seed": 1}),
        ": provenance.seed: expected text, got 1",
    ),
    bad_schedule(
        "not a number",
        '{"format": "automix-schedule", "version": 1, "segments": NaN}',
        ": expected a JSON schedule, got: NaN, which is not a number",
    ),
    bad_schedule(
        "too large for a float",
        schedule_text(segment()).replace('"start": 0.0', '"start": 1e999'),
        ": expected a JSON schedule, got: 1e999, which is too large",
    ),
    bad_schedule(
        "a key twice",
        '{"format": "automix-schedule", "format": "automix-schedule"}',
        ": expected a JSON schedule, got: the key 'format' is given twice",
    ),
    bad_schedule(
        "deep", "[" * 100_000, ": expected a JSON schedule, got: more than 50 levels of nesting"
    ),
    bad_schedule(
        "fairly deep",
        '{"format": "automix-schedule", "version": 1, "segments": ' + "[" * 300 + "]" * 300 + "}",
        ": expected a JSON schedule, got: more than 50 levels of nesting",
    ),
    bad_schedule("a huge integer", "9" * 5000, ": expected a JSON schedule, got: Exceeds..."),
    bad_schedule("not UTF-8", b"\xff{}", ": expected UTF-8 text, got the byte 0xff at position 0"),
    bad_schedule("too large", " " * 4_000_001, ": expected at most 4000000 bytes, got 4000001"),
]
