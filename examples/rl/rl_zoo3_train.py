"""RL Baselines3 Zoo: its `train` with the hyperparameters in `configs/agent/rl_zoo3.yml`.

On a command line, with the saved agent, evaluations and hyperparameters in ``logs/``::

    python -m rl_zoo3.train --algo ppo --env AutoMix/MixSchedule-v0 --gym-packages envs \
        --conf-file configs/agent/rl_zoo3.yml
"""

import sys
import tempfile
from pathlib import Path

from rl_zoo3.train import train
from stable_baselines3 import PPO

from automix.schedule import Schedule
from examples.rl.playing import ENVIRONMENT, play, show

HYPERPARAMETERS = Path(__file__).parents[2] / "configs" / "agent" / "rl_zoo3.yml"


def main() -> Schedule:
    """Train as the file says; return the schedule of the learned policy."""
    with tempfile.TemporaryDirectory() as logs:
        # The program reads the command line: it has no other entry.
        command = ["train", "--algo", "ppo", "--env", ENVIRONMENT, "--gym-packages", "envs"]
        command += ["--conf-file", str(HYPERPARAMETERS), "--log-folder", logs, "--seed", "0"]
        before, sys.argv = sys.argv, [*command, "--device", "cpu"]
        try:
            train()
        finally:
            sys.argv = before
        # A saved agent is unpickled: load only those that you have trained.
        (saved,) = Path(logs).glob("ppo/*/*.zip")
        agent = PPO.load(saved, device="cpu")
    return play(lambda observation: agent.predict(observation, deterministic=True)[0])


if __name__ == "__main__":
    show(main())
