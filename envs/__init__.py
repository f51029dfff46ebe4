"""Gymnasium environments that wrap the training of a classifier.

Importing this package registers them; the classes themselves are imported when one is made:

* ``AutoMix/MixSchedule-v0``: the digits, with the defaults of every configuration.
* ``AutoMix/MixSchedule-Smoke-v0``: the same on a few images for a few steps, to try things out.
* ``AutoMix/RLMix-v0``: one percentile per image of each mini-batch, as in Random-Mixup.
* ``AutoMix/RLMix-Smoke-v0``: the same on a few images for a few steps.
"""

import gymnasium

gymnasium.register(id="AutoMix/MixSchedule-v0", entry_point="envs.mixing_env:MixingEnv")
gymnasium.register(
    id="AutoMix/MixSchedule-Smoke-v0", entry_point="envs.smoke:make_smoke_environment"
)
gymnasium.register(id="AutoMix/RLMix-v0", entry_point="envs.rlmix.env:RLMixEnv")
gymnasium.register(id="AutoMix/RLMix-Smoke-v0", entry_point="envs.smoke:make_smoke_rlmix")
