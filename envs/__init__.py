"""Gymnasium environments that wrap the training of a classifier.

Importing this package registers them; the classes themselves are imported when one is made:

* ``AutoMix/MixSchedule-v0``: the digits, with the defaults of every configuration.
* ``AutoMix/MixSchedule-Smoke-v0``: the same on a few images for a few steps, to try things out.
* ``AutoMix/MixSchedule-Discrete-v0`` and ``AutoMix/MixSchedule-Discrete-Smoke-v0``: both with one
  integer per action.
* ``AutoMix/RLMix-v0``: one percentile per image of each mini-batch, as in Random-Mixup.
* ``AutoMix/RLMix-Smoke-v0``: the same on a few images for a few steps.
"""

import gymnasium
from gymnasium.envs.registration import WrapperSpec

_DISCRETE = WrapperSpec(
    name="DiscreteActions", entry_point="envs.discrete:DiscreteActions", kwargs={}
)

for _name, _maker in (
    ("", "envs.mixing_env:MixingEnv"),
    ("-Smoke", "envs.smoke:make_smoke_environment"),
):
    gymnasium.register(id=f"AutoMix/MixSchedule{_name}-v0", entry_point=_maker)
    gymnasium.register(
        id=f"AutoMix/MixSchedule-Discrete{_name}-v0",
        entry_point=_maker,
        additional_wrappers=(_DISCRETE,),
    )
gymnasium.register(id="AutoMix/RLMix-v0", entry_point="envs.rlmix.env:RLMixEnv")
gymnasium.register(id="AutoMix/RLMix-Smoke-v0", entry_point="envs.smoke:make_smoke_rlmix")
