"""Commands, words and output folders that are wrong."""

import json

from tests.cli.mistake import LAST_OPERATOR, BadInput, bad_words

GOOD_SCHEDULE = json.dumps(
    {
        "format": "automix-schedule",
        "version": 1,
        "segments": [{"start": 0, "decision": {"operator": "mixup"}}],
    }
)

_OLD_TASK = "localisation"

WORDS = [
    bad_words(
        "unknown command",
        "serach",
        "automix: expected one of search, replay,... got 'serach' (did you mean 'search'?)",
    ),
    bad_words("a flag before the command", "--seed 1", "automix: expected one of search,..."),
    bad_words(
        "no schedule",
        "replay",
        "automix replay: expected SCHEDULE.json [FOLDER] [CONFIG.yaml] (or --policy or --resume "
        "and no SCHEDULE.json), got nothing",
    ),
    bad_words(
        "resume and a schedule",
        "replay good.json --resume run",
        "automix replay: expected no word with --resume, got good.json",
    ),
    bad_words(
        "resume and other flags",
        "replay --resume run --seed 3 --output there",
        "--resume: expected nothing else beside it, got --output --seed",
    ),
    bad_words(
        "resume nothing",
        "replay --resume nowhere",
        "nowhere: expected the folder of a replay, got nothing there",
    ),
    BadInput(
        name="words: resume another folder",
        argv="replay --resume photos",
        files={"photos": None},
        message="photos: expected the folder of a replay, got one without a schedule and a policy",
    ),
    BadInput(
        name="words: resume a run without its configuration",
        argv="replay --resume run",
        files={"run/schedule.json": GOOD_SCHEDULE},
        message="run/config.yaml: expected a readable file, got: no such file or directory",
    ),
    bad_words(
        "a policy and a schedule",
        "replay good.json my.yaml --policy run",
        "automix replay: expected [FOLDER] [CONFIG.yaml] with --policy, got good.json my.yaml",
    ),
    bad_words(
        "a policy that is not there",
        "replay --policy nowhere",
        "nowhere: expected the folder of a search, or of a policy, got one without policy.json",
    ),
    BadInput(
        name="words: a policy without the environment it was learned in",
        argv="replay --policy alone/policy",
        files={"alone/policy/policy.json": "{}"},
        message="alone/config.yaml: expected a readable file, got: no such file or directory",
    ),
    BadInput(
        name="words: a policy that is damaged",
        argv="replay --policy run",
        files={"run/policy/policy.json": "{", "run/config.yaml": "seed: 1"},
        message="run/policy/policy.json: expected JSON, got: Expecting property...",
    ),
    BadInput(
        name="words: the best of no validation",
        argv="replay good.json --weights best --validations 0",
        files={"good.json": GOOD_SCHEDULE},
        message="command line: expected validations of at least 1 with weights best, got 0",
    ),
    BadInput(
        name="words: the best on no image",
        argv="replay good.json --weights best --task.data.selection-size 0",
        files={"good.json": GOOD_SCHEDULE},
        message="weights: expected last without a selection split (task.data.selection-size 0), "
        "got best",
    ),
    BadInput(
        name="words: no checkpoint at all",
        argv="replay good.json --checkpoints.keep 0",
        files={"good.json": GOOD_SCHEDULE},
        message="--checkpoints.keep: expected greater than or equal to 1, got 0",
    ),
    BadInput(
        name="words: a batch that cannot be accumulated",
        argv="replay good.json --task.trainer.accumulation 3",
        files={"good.json": GOOD_SCHEDULE},
        message="--task.trainer.accumulation: expected a divisor of batch_size 50, got 3",
    ),
    bad_words(
        "too many files",
        "search one.yaml two.yaml",
        "automix search: expected [FOLDER] [CONFIG.yaml], got one.yaml two.yaml",
    ),
    bad_words(
        "evaluate nothing",
        "evaluate",
        "automix evaluate: expected RUN [CONFIG.yaml], got nothing",
    ),
    bad_words(
        "evaluate what is no run",
        "evaluate nowhere",
        "nowhere/result.json: expected a readable file, got: no such file or directory",
    ),
    bad_words(
        "evaluate an unknown task",
        "evaluate nowhere --tasks corruption",
        "--tasks: expected 'classification', 'corruptions',... got 'corruption' "
        "(did you mean 'corruptions'?)",
    ),
    bad_words(
        "evaluate a task by its old name",
        f"evaluate nowhere --tasks {_OLD_TASK}",
        "--tasks: expected its new name localization, got the old one",
    ),
    BadInput(
        name="words: resume a run of version 0.1",
        argv="replay --resume run",
        files={
            "run/schedule.json": GOOD_SCHEDULE,
            "run/config.yaml": "task: {trainer: {peak_learning_rate: 0.1}}",
        },
        message="run/config.yaml: task.trainer.peak_learning_rate: expected its new name "
        "learning_rate, got the old one",
    ),
    bad_words(
        "evaluate with boxes for nothing",
        "evaluate nowhere --tasks attacks --boxes boxes.csv",
        "command line: expected no boxes without the tasks 'localization' or 'object_occlusion', "
        "got 'boxes.csv'",
    ),
    BadInput(
        name="words: evaluate a search",
        argv="evaluate run",
        files={"run/result.json": '{"kind": "search"}'},
        message="run: expected the run of a replay, which has a classifier, got one of 'search'",
    ),
    bad_words("a card of nothing", "card", "automix card: expected RUN, got nothing"),
    bad_words(
        "a card with a license that is none",
        "card nowhere --license MIT",
        "--license: expected... got 'MIT'",
    ),
    bad_words(
        "a card with half a license",
        "card nowhere --license other",
        "command line: expected license_name and license_link with the license 'other', got none "
        "of both",
    ),
    BadInput(
        name="words: a card of a comparison",
        argv="card run",
        files={
            "run/result.json": '{"kind": "compare", "num_seeds": 2, "baseline": "", "splits": {}}',
            "run/environment.json": "{}",
        },
        message="run: expected the run of a replay, which has a classifier, or of a search, which "
        "has a policy, got one of 'compare'",
    ),
    bad_words("report on nothing", "report", "automix report: expected FOLDER, got nothing"),
    bad_words(
        "report with flags",
        "report runs --wide",
        "automix report: expected a known flag, got --wide; --help all lists them",
    ),
    bad_words(
        "report on no run",
        "report .",
        ".: expected finished runs or sweeps, got none",
    ),
    bad_words("show nothing", "show", "automix show: expected FOLDER, got nothing"),
    bad_words("show no folder", "show nowhere", "nowhere: expected a folder of images, got none"),
    BadInput(
        name="words: show an unknown operator",
        argv="show images --operators blur",
        files={"images": None},
        message=f"--operators: expected 'none', 'mixup',... or '{LAST_OPERATOR}', got 'blur'",
    ),
    bad_words(
        "unknown schedule command",
        "schedule shw x.json",
        "automix schedule: expected one of show, recommend, make, got 'shw' (did you mean 'show'?)",
    ),
    bad_words(
        "schedule show nothing",
        "schedule show",
        "automix schedule show: expected SCHEDULE.json, got nothing",
    ),
    bad_words(
        "schedule make without a file",
        "schedule make none",
        "automix schedule make: expected DESCRIPTION SCHEDULE.json, got none",
    ),
    bad_words(
        "schedule make of several",
        "schedule make constants x.json",
        "constants: expected the description of one schedule, got...",
    ),
    bad_words(
        "configuration of an unknown command",
        "config serch",
        "automix config: expected one of search, replay,... got 'serch' (did you mean 'search'?)",
    ),
    bad_words(
        "compare with an unknown schedule",
        "compare --schedules none ranom",
        "schedules: expected a schedule file, none, portfolio... got 'ranom' "
        "(did you mean 'random'?)",
    ),
    bad_words(
        "compare with an unknown operator",
        "compare --schedules constant:mixupp",
        "schedules: expected an operator among none,... got 'mixupp' (did you mean 'mixup'?)",
    ),
    bad_words(
        "compare with an impossible strength",
        "compare --schedules constant:mixup:99",
        "schedules: constant:mixup:99: expected a strength in [0.01, 10] for mixup (alpha of "
        "Beta(alpha, alpha); larger mixes more evenly), got 99",
    ),
    bad_words(
        "compare with a strength that is none",
        "compare --schedules constant:mixup:strong",
        "schedules: constant:mixup:strong: strength: expected a number, got 'strong'",
    ),
    bad_words(
        "compare with too many numbers",
        "compare --schedules constant:mixup:1:1:1",
        "schedules: expected OPERATOR[:STRENGTH[:PROBABILITY]], got 'mixup:1:1:1'",
    ),
    bad_words(
        "compare with nothing to ramp",
        "compare --schedules ramp:none",
        "schedules: expected an operator that mixes, got 'none'",
    ),
    bad_words(
        "compare with a missing file",
        "compare --schedules shuffled:nowhere.json",
        "nowhere.json: expected a readable file, got: no such file or directory",
    ),
    bad_words(
        "train a network that there is not",
        "compare --schedules none --task.model.name torchvision/resnet19x",
        "model.name: expected one of the... of torchvision, got 'torchvision/resnet19x'...",
    ),
    BadInput(
        name="words: train a network that cannot take the images",
        argv="replay good.json --task.model.name torchvision/alexnet",
        files={"good.json": GOOD_SCHEDULE},
        message="task.model.name: expected a classifier that trains on batches of 2 images of "
        "1 x 8 x 8, got 'torchvision/alexnet': Given input size...",
    ),
    BadInput(
        name="words: train a network on batches of one",
        argv="search --task.model.name torchvision/resnet18 --task.trainer.batch-size 1",
        message="task.model.name: expected a classifier that trains on batches of 1 images of "
        "1 x 8 x 8, got 'torchvision/resnet18': Expected more than 1 value per channel...",
    ),
    bad_words(
        "too many threads",
        "compare --compute.threads 10000000000",
        "--compute.threads: expected less than or equal to 1024, got 10000000000",
    ),
    bad_words(
        "compare nothing",
        "compare --schedules",
        "--schedules: expected at least 1 item, got []",
    ),
    bad_words(
        "compare on an unknown split",
        "compare --split train",
        "--split: expected 'selection', 'test' or 'both', got 'train'",
    ),
]

OUTPUTS = [
    BadInput(
        name="output: a file",
        argv="search --output taken",
        files={"taken": "mine"},
        message="--output: expected a folder, got the file taken",
    ),
    BadInput(
        name="output: below a file",
        argv="replay good.json --output taken/run",
        files={"taken": "mine", "good.json": GOOD_SCHEDULE},
        message="taken/run: expected a folder that can be written, got: not a directory",
    ),
    BadInput(
        name="output: another run",
        argv="replay good.json --output run",
        files={"run/config.yaml": "seed: 5", "good.json": GOOD_SCHEDULE},
        message="run: expected an empty folder or a run of the same configuration,...",
    ),
    BadInput(
        name="output: a schedule over a folder",
        argv="schedule make none taken",
        files={"taken": None},
        message="taken: expected a place that can be read and written, got: is a directory",
    ),
    BadInput(
        name="output: a plot that is no picture",
        argv="schedule show good.json --plot plot.doc",
        files={"good.json": GOOD_SCHEDULE},
        message="plot.doc: expected a file name that ends in .png, got another",
    ),
]
