"""Configuration files that are wrong."""

from tests.cli.mistake import LAST_OPERATOR, BadInput, bad_words

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)


def bad_config(name: str, content: str | bytes, message: str) -> BadInput:
    return BadInput(
        name=f"config: {name}",
        argv="search bad.yaml",
        files={"bad.yaml": content},
        message=f"bad.yaml{message}",
    )


CONFIGS = [
    bad_config(
        "misspelt key",
        "task: {trainer: {epoch: 5}}",
        ": task.trainer.epoch: expected one of epochs, batch_size,... "
        "got the unknown key 'epoch' (did you mean 'epochs'?)",
    ),
    bad_config(
        "misspelt section",
        "tasks: {}",
        ": tasks: expected one of seed, runs, minutes, portfolio, pretrained, task, environment, "
        "searcher, agent, selection, compute, got the unknown key 'tasks' (did you mean 'task'?)",
    ),
    bad_config(
        "an old name",
        "task: {trainer: {warm_up: 0.1}}",
        ": task.trainer.warm_up: expected its new name warmup, got the old one",
    ),
    bad_config(
        "a removed key",
        "agent: {lstm_size: 8}",
        ": agent.lstm_size: expected no such key (removed, see CHANGELOG.md), got 'lstm_size'",
    ),
    bad_config(
        "text for a number",
        "task: {trainer: {epochs: many}}",
        ": task.trainer.epochs: expected an integer, got 'many'",
    ),
    bad_config(
        "a truth value for an integer",
        "task: {trainer: {epochs: true}}",
        ": task.trainer.epochs: expected an integer, got true",
    ),
    bad_config(
        "a truth value in a list of numbers",
        "environment: {probabilities: [true]}",
        ": environment.probabilities.0: expected a number, got true",
    ),
    bad_config(
        "a quoted number",
        'task: {trainer: {epochs: "80"}}',
        ": task.trainer.epochs: expected an integer, got '80'",
    ),
    bad_config(
        "half an epoch",
        "task: {trainer: {epochs: 0.5}}",
        ": task.trainer.epochs: expected an integer, got 0.5",
    ),
    bad_config(
        "a number for text",
        "task: {model: {name: 18}}",
        ": task.model.name: expected text, got 18",
    ),
    bad_config(
        "an English truth value",
        "task: {data: {source: cifar10, download: yes}}",
        ": task.data.download: expected true or false, got 'yes'",
    ),
    bad_config(
        "nothing where there must be something",
        "task: {trainer: {epochs: null}}",
        ": task.trainer.epochs: expected an integer, got null",
    ),
    bad_config(
        "out of range",
        "task: {trainer: {momentum: 1.0}}",
        ": task.trainer.momentum: expected less than 1, got 1.0",
    ),
    bad_config(
        "not a number",
        "agent: {learning_rate: .nan}",
        ": agent.learning_rate: expected a finite number, got nan",
    ),
    bad_config(
        "infinite",
        "agent: {learning_rate: .inf}",
        ": agent.learning_rate: expected a finite number, got inf",
    ),
    bad_config(
        "too large for a float",
        "agent: {learning_rate: 1e999}",
        ": agent.learning_rate: expected a finite number, got inf",
    ),
    bad_config(
        "unknown operator",
        "environment: {operators: [none, cutmixx]}",
        f": environment.operators.1: expected 'none', 'mixup', 'cutmix',... or '{LAST_OPERATOR}', "
        "got 'cutmixx' (did you mean 'cutmix'?)",
    ),
    bad_config(
        "an operator twice",
        "environment: {operators: [mixup, mixup]}",
        ": environment.operators: expected each operator once, got mixup, mixup",
    ),
    bad_config(
        "unknown choice",
        "task: {trainer: {learning_rate_schedule: cosin}}",
        ": task.trainer.learning_rate_schedule: expected 'one_cycle', 'cosine', 'multi_step' or "
        "'constant', got 'cosin' (did you mean 'cosine'?)",
    ),
    bad_config(
        "a value of no alternative",
        "task: {data: {image_size: big}}",
        ": task.data.image_size: expected an integer or a list, got 'big'",
    ),
    bad_config(
        "an alternative out of range",
        "task: {data: {image_size: [32, 0]}}",
        ": task.data.image_size.1: expected greater than or equal to 1, got 0",
    ),
    bad_config("several mistakes", "{seed: -1, tsk: 1, agent: 3}", ": seed:... (and 2 more)"),
    bad_config(
        "a section without keys",
        "task:\nagent: {episodes: 64}",
        ": task: expected a mapping of keys to values, got null",
    ),
    bad_config(
        "a flag in the file",
        "output: runs/here",
        ": output: expected one of seed,... got the unknown key 'output'",
    ),
    bad_config(
        "fields that do not go together",
        "task: {data: {source: folder}}",
        ": task.data.path: expected a folder of images, got nothing",
    ),
    bad_config("a list", "[1, 2]", ": expected a mapping of keys to values, got [1, 2]"),
    bad_config("a word", "digits", ": expected a mapping of keys to values, got 'digits'"),
    bad_config("empty", "", ": expected a mapping of keys to values, got nothing"),
    bad_config("a comment", "# later\n", ": expected a mapping of keys to values, got nothing"),
    bad_config("unclosed", "task: [1\n", ", line 2: expected plain YAML, got:..."),
    bad_config(
        "a tab", "task:\n\tdata: {}", ", line 2: expected plain YAML, got: found character..."
    ),
    bad_config(
        "two documents",
        "seed: 1\n---\nseed: 2",
        ", line 2: expected plain YAML, got: found another document",
    ),
    bad_config(
        "a key twice",
        "seed: 1\nagent: {}\nseed: 2",
        ", line 3: expected plain YAML, got: the key 'seed' twice",
    ),
    bad_config(
        "a list as a key",
        "? [a]\n: 1",
        ", line 1: expected plain YAML, got: a list or a mapping...",
    ),
    bad_config(
        "a Python object",
        "seed: !!python/object/apply:os.system ['touch marker']",
        ", line 1: expected plain YAML, got: the tag 'tag:yaml.org,2002:python/object/apply:"
        "os.system'; write a plain value",
    ),
    bad_config(
        "a billion laughs",
        LAUGHS,
        ", line 1: expected plain YAML, got: an anchor or alias; write the value out",
    ),
    bad_config(
        "deep", "[" * 5000, ", line 1: expected plain YAML, got: more than 20 levels of nesting"
    ),
    bad_config("a huge integer", f"seed: {'9' * 5000}", ": expected plain YAML, got:..."),
    bad_config(
        "a control character", "seed: \x00", ": expected plain YAML, got: unacceptable character..."
    ),
    bad_config(
        "half of a surrogate pair",
        'task: {data: {path: "\\ud800"}}',
        ": expected plain values, got: unexpected end of hex escape...",
    ),
    bad_config(
        "not UTF-8",
        b"seed: \xff",
        ": expected UTF-8 text, got the byte 0xff at position 6",
    ),
    bad_config("too large", "# " + "x" * 100_000, ": expected at most 100000 bytes, got 100002"),
    BadInput(
        name="config: a folder",
        argv="search bad.yaml",
        files={"bad.yaml": None},
        message="bad.yaml: expected a readable file, got: is a directory",
    ),
    bad_words(
        "a configuration that is not there",
        "compare nowhere.yaml",
        "nowhere.yaml: expected a readable file, got: no such file or directory",
    ),
    BadInput(
        name="config: a device that never ends",
        argv="search endless.yaml",
        prepare=lambda folder: (folder / "endless.yaml").symlink_to("/dev/zero"),
        message="endless.yaml: expected a readable file, got: is a device",
    ),
    BadInput(
        name="config: file and flags together",
        argv="search good.yaml --task.model.width 8",
        files={"good.yaml": "task: {model: {name: wide_resnet16_8}}"},
        message="good.yaml and flags: task.model: expected no width with 'wide_resnet16_8', got 8",
    ),
    BadInput(
        name="config: a flag on top of a good file",
        argv="search good.yaml --agent.episodes 0",
        files={"good.yaml": "seed: 1"},
        message="--agent.episodes: expected greater than or equal to 1, got 0",
    ),
    BadInput(
        name="config: a flag in a section that is none",
        argv="search bad.yaml --agent.episodes 8",
        files={"bad.yaml": "agent: 3"},
        message="bad.yaml and flags: agent: expected a mapping of keys to values, got 3",
    ),
    BadInput(
        name="config: a section in a file that does not fit",
        argv="search good.yaml",
        files={"good.yaml": "agent: parts/agent.yaml", "parts/agent.yaml": "episode: 3"},
        message="parts/agent.yaml: episode: expected one of episodes,... "
        "(did you mean 'episodes'?)",
    ),
    BadInput(
        name="config: a section in a file that is not there",
        argv="search good.yaml",
        files={"good.yaml": "task: {trainer: trainer.yaml}"},
        message="trainer.yaml: expected a readable file, got: no such file or directory",
    ),
    BadInput(
        name="config: a section that names itself",
        argv="search good.yaml --agent good.yaml",
        files={"good.yaml": "agent: good.yaml"},
        message="good.yaml: agent: expected one of episodes,... got the unknown key 'agent'...",
    ),
]
