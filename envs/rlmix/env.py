"""RLMix-v0: one action per batch, the predecessor's environment.

Random-Mixup, https://arxiv.org/abs/2212.04875, learned by an agent that mixes each batch.
Shape suffixes: B batch, C channels, H rows, W columns, P cells per side, K classes.
"""

import copy
import dataclasses
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor, nn

from automix.configuration.task import TaskConfig
from automix.data.splits import SearchData
from automix.errors import ConfigError
from automix.models.pretrained import images_of
from automix.operator_info import Operator
from automix.operators.rmix import RMixDraws, apply_rmix, draw_rmix
from automix.operators.sampling import enlarge_cells
from automix.operators.types import BatchShape, MixedBatch
from automix.random_streams import Stream, derived_seed, stream_generator
from automix.saliency.gradient import normalized, outputs_of, raw_module
from automix.schedule import Decision
from automix.training.step import MicroBatch
from automix.training.trainer import (
    ClassifierTrainer,
    TrainerState,
    build_trainer,
    load_search_data,
)
from envs.pictures import tiled
from envs.resumable import ResumableEnv, with_gradients
from envs.rewards import Potential
from envs.rlmix.config import RLMixConfig
from envs.rlmix.similarity import (
    batch_similarity,
    gradient_cells,
    image_similarity,
    pooled_magnitude,
)

NUM_PERCENTILES = 10
_PERCENTILE_STEP = 0.11
# Log-probabilities below this are observed as this: a space of observations has bounds.
LOWEST_LOG = -16.0

Maps = dict[str, NDArray[np.float32]]
Percentiles = NDArray[np.int64]


class RLMixState(TypedDict):
    """State that an episode resumes from bit for bit: tensors and plain values."""

    seed: int
    episode: int
    potential: float
    is_over: bool
    trainer: TrainerState


class RLMixEnv(ResumableEnv[Maps, Percentiles]):
    """Choose for each image of each mini-batch how much of its saliency survives mixing.

    ## Action Space
    `MultiDiscrete([10] * B)`: for each image, the percentile of its saliency (0, 0.11, ... 0.99)
    from which on its cells are salient. Cells of which one of two images alone is salient show that
    one, the others a blend (R-Mix).

    ## Observation Space
    A `Dict` about the batch that is to be mixed: `saliency`, (B, P, P) maps that sum to 1 each, and
    `logits`, (B, K) log-probabilities down to -16, both flattened to one axis, image after image.
    With `observe_draws` also `partner_saliency`, `lam` and `grid`, which are drawn before the
    action.

    ## Rewards
    `validation_gain`: gain of the negative calibrated NLL on the reward split, paid every
    `validate_every` steps and at the end. `gradient_similarity`: the published cosine, in [0, 1].
    `image_similarity`: the mean of one cosine per image.

    ## Starting State
    A freshly initialized classifier; an episode is one training run. `reset(seed=s)` starts a
    reproducible sequence of episodes.

    ## Episode End
    Terminates after the last mini-batch of the run, or when a loss is not finite. The last
    observation is of the batch that would come next. Never truncates.

    ## Information
    `info["loss"]` and `info["diverged"]`; at the end `info["metrics"]`, `info["potential"]` and
    `info["training_seed"]`.

    ## Example
    ```pycon
    >>> import envs, gymnasium
    >>> env = gymnasium.make("AutoMix/RLMix-Smoke-v0")
    >>> observation, info = env.reset(seed=0)
    >>> sorted(observation), env.action_space.nvec.shape
    (['logits', 'saliency'], (10,))
    >>> observation, reward, terminated, truncated, info = env.step([5] * 10)
    >>> info["diverged"], reward  # paid every `validate_every` steps
    (False, 0.0)

    ```

    ## Version History
    * v0: initial version
    """

    @with_gradients
    def __init__(
        self,
        task: TaskConfig | None = None,
        config: RLMixConfig | None = None,
        *,
        data: SearchData | None = None,
        seed: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        """Prepare the data and the classifier once; episodes re-initialize it in place.

        The default task is the digits; ``data`` are used instead of loading those of the task.

        Raises:
            AutoMixError: the data cannot be loaded, the layer does not exist, a grid is finer than
                the images, or a step has several micro-batches.
        """
        self._check_render_mode(render_mode)
        self.render_mode = render_mode
        self.task = task or TaskConfig()
        self.config = config or RLMixConfig()
        self.data = data or load_search_data(images_of(self.task))
        self.trainer = build_trainer(self.task, self.data, seed=0)
        batch, size = self.trainer.batch_size, min(self.data.image_shape[1:])
        _check(self.config, self.task, self.trainer.model, image_size=size)
        self.observation_space = _observations(self.config, batch, self.data.num_classes)
        self.action_space = spaces.MultiDiscrete([NUM_PERCENTILES] * batch)
        self._seed = seed
        self._episode = -1
        # As the other environment pays by default: the gain of the negative calibrated NLL.
        self._potential = Potential({"calibrated_nll": 1.0}, num_classes=self.data.num_classes)
        self._last_potential = 0.0
        self._is_over = True
        self._seen: SeenBatch | None = None
        # Of the last batch that was mixed, for `render`.
        self._picture: NDArray[np.uint8] | None = None

    @with_gradients
    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Maps, dict[str, Any]]:
        """Start a new training run; there are no options."""
        super().reset(seed=seed)
        if options:
            raise ValueError(f"expected no options, got {sorted(options)}")
        if seed is not None:
            self._seed, self._episode = seed, -1
        elif self._seed is None:
            self._seed = int(self.np_random.integers(2**31))
        self._episode += 1
        self.trainer.reset(derived_seed(self._seed, Stream.EPISODE, step=self._episode))
        self._is_over, self._picture = False, None
        self._last_potential = 0.0
        if self._pays_gain:
            self._last_potential = self._potential.of(self.trainer.evaluate(self.data.reward))
        return self._see()[0], {"training_seed": self.trainer.seed}

    @with_gradients
    def step(self, action: Percentiles) -> tuple[Maps, float, bool, bool, dict[str, Any]]:
        """Mix the batch that was observed, train on it, and observe the next."""
        if self._is_over or self._seen is None:
            raise RuntimeError("expected reset() before this, got step()")
        if not self.action_space.contains(np.asarray(action, dtype=np.int64)):
            raise ValueError(f"expected an action in {self.action_space}, got {action!r}")
        # Mix and train; nothing waits for the device yet.
        levels_B = torch.as_tensor(np.asarray(action), device=self._seen.cells.device)
        mixed = mix(self._seen, levels_B)
        if self.render_mode is not None:
            self._picture = tiled(mixed.images, self.data.statistics)
        loss, similarity = train_on(self.trainer, self._seen, mixed, self.config)
        # Observe the next batch, and read what this step gave in the same transfer.
        observation, numbers = self._see(loss, similarity)
        diverged = not np.isfinite(numbers).all()
        self._is_over = diverged or self.trainer.step == self.trainer.total_steps
        # Reward: the similarity of this step, or the gain since the last evaluation.
        info: dict[str, Any] = {"loss": numbers[0], "diverged": diverged}
        is_due = self._pays_gain and self.trainer.step % self.config.validate_every == 0
        reward = 0.0 if diverged or self._pays_gain else numbers[1]
        if self._is_over or is_due:
            metrics = self.trainer.evaluate(self.data.reward)
            potential = self._potential.at_chance if diverged else self._potential.of(metrics)
            if self._pays_gain:
                reward, self._last_potential = potential - self._last_potential, potential
            info |= {"metrics": metrics, "potential": potential}
        if self._is_over:
            info["training_seed"] = self.trainer.seed
        return observation, reward, self._is_over, False, info

    def get_state(self) -> RLMixState:
        """Return a copy of the state of the episode in progress."""
        assert self._seed is not None, "reset() sets the seed"
        return RLMixState(
            seed=self._seed,
            episode=self._episode,
            potential=self._last_potential,
            is_over=self._is_over,
            trainer=copy.deepcopy(self.trainer.state_dict()),
        )

    @with_gradients
    def set_state(self, state: RLMixState) -> Maps:
        """Resume the episode that `get_state` captured; return its last observation."""
        self._seed, self._episode = state["seed"], state["episode"]
        self._last_potential, self._is_over = state["potential"], state["is_over"]
        self.trainer.load_state_dict(state["trainer"])
        return self._see()[0]

    def render(self) -> NDArray[np.uint8] | None:
        """Return the last batch that was mixed as an (H, W, 3) picture, before the first the clean.

        None without a render mode.

        Raises:
            RuntimeError: there was no `reset` yet.
        """
        if self.render_mode is None:
            return None
        if self._seen is None:
            raise RuntimeError("expected reset() before this, got render()")
        if self._picture is not None:
            return self._picture
        return tiled(self._seen.clean.images, self.data.statistics)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy is made from, the picture of the last batch included."""
        return super().__getstate__() | {"picture": self._picture}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Build the environment again, and resume its episode."""
        super().__setstate__(state)
        self._picture = state["picture"]

    @property
    def _pays_gain(self) -> bool:
        return self.config.reward == "validation_gain"

    def _see(self, *numbers: Tensor) -> tuple[Maps, list[float]]:
        """Observe the next batch; read it and ``numbers`` from the device, in one go."""
        self._seen = see(self.trainer, self.config)
        parts = observed(self._seen, self.config)
        flat = torch.cat([number.flatten().float() for number in (*numbers, *parts.values())])
        values = flat.cpu().numpy()
        observation, start = {}, len(numbers)
        for name, part in parts.items():
            observation[name] = values[start : start + part.numel()].copy()
            start += part.numel()
        return observation, values[: len(numbers)].tolist()


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenBatch:
    """A clean batch, its outputs and gradients, and what is drawn for its mixing."""

    clean: MicroBatch
    # (B, P, P) magnitude of the gradient, not normalized: a similarity compares magnitudes.
    cells: Tensor
    logits: Tensor
    # Partners and weights; the percentiles are up to the agent.
    draws: RMixDraws
    grid: int


def see(trainer: ClassifierTrainer, config: RLMixConfig) -> SeenBatch:
    """Return the next batch of a training run; the pass leaves no trace in the network."""
    stages = trainer.training_step
    images, labels, key = stages.fetch(seed=trainer.seed, step=trainer.step)
    clean = stages.mix(Decision(operator=Operator.NONE), images, labels, key=key)
    # In train mode, as the training step that follows; the state of batch norm is put back.
    trainer.training_step.train_mode()
    cells_BPP, logits_BK = gradient_cells(
        trainer.model, images, labels, cells=config.cells, layer=config.layer
    )
    generator = stream_generator(
        key.seed, Stream.MIXING, rank=key.rank, step=key.step, device=images.device
    )
    shape = BatchShape(len(images), images.shape[2], images.shape[3])
    draws = draw_rmix(shape, strength=config.strength, generator=generator, per="batch")
    # On the host: what is drawn on the device would have to be waited for.
    choice = derived_seed(key.seed, Stream.MIXING_CHOICE, rank=key.rank, step=key.step)
    grid = config.grids[choice % len(config.grids)]
    return SeenBatch(clean=clean, cells=cells_BPP, logits=logits_BK, draws=draws, grid=grid)


def observed(seen: SeenBatch, config: RLMixConfig) -> dict[str, Tensor]:
    """Return what the agent sees of a batch: float32 tensors within the space of observations."""
    maps_BPP = normalized(seen.cells).clamp(0, 1)
    logs_BK = seen.logits.log_softmax(dim=1).nan_to_num(LOWEST_LOG)
    result = {"saliency": maps_BPP, "logits": logs_BK.clamp(LOWEST_LOG, 0)}
    if config.observe_draws:
        result["partner_saliency"] = maps_BPP[seen.draws.partner]
        result["lam"] = seen.draws.lam
        result["grid"] = torch.full((1,), float(seen.grid), device=maps_BPP.device)
    return result


def mix(seen: SeenBatch, levels_B: Tensor) -> MixedBatch:
    """Mix a batch; cells at or above the percentile of their image are salient.

    ``levels_B``, (B,) int64, are the indices of the percentiles 0, 0.11, ... 0.99.
    """
    images = seen.clean.images
    size = (images.shape[2], images.shape[3])
    with torch.no_grad():
        return apply_rmix(
            images,
            seen.clean.labels,
            seen.draws._replace(percentile=levels_B * _PERCENTILE_STEP),
            saliency_BHW=enlarge_cells(seen.cells, size).squeeze(1),
            grid=seen.grid,
            num_classes=seen.logits.shape[1],
        )


def train_on(
    trainer: ClassifierTrainer, seen: SeenBatch, mixed: MixedBatch, config: RLMixConfig
) -> tuple[Tensor, Tensor]:
    """Do one training step on the mixed batch; return its loss and the similarity that is paid.

    Both are scalars on the device. The similarity, of the gradients of the clean and the mixed
    batch with respect to the same weights, is 0 where only the gain is paid.
    """
    batch = dataclasses.replace(
        seen.clean, images=mixed.images, targets=mixed.targets, is_mixed=True
    )
    if config.reward == "validation_gain":
        loss = _step_on(trainer, batch)
        return loss, torch.zeros_like(loss)
    # The published agent takes both gradients in passes of their own. Here the backward pass of the
    # training step gives that of the mixed batch: at the images, or at the output of a layer.
    if config.layer is None:
        images = mixed.images.detach().requires_grad_()
        loss = _step_on(trainer, dataclasses.replace(batch, images=images))
        gradient = images.grad
    else:
        with outputs_of(raw_module(trainer.model), config.layer, cut=False) as outputs:
            loss = _step_on(trainer, batch)
        gradient = outputs[-1].grad
    assert gradient is not None
    cells_BPP = pooled_magnitude(gradient.float(), cells=config.cells)
    if config.reward == "gradient_similarity":
        return loss, batch_similarity(seen.cells, cells_BPP)
    return loss, image_similarity(seen.cells, cells_BPP).mean()


def _step_on(trainer: ClassifierTrainer, batch: MicroBatch) -> Tensor:
    """Do the stages of a training step that follow mixing; return the loss, on the device."""
    stages = trainer.training_step
    trainer.training_step.train_mode()
    loss = stages.loss(stages.forward(batch), batch)
    stages.backward(loss)
    stages.update(trainer.step)
    stages.average(trainer.step)
    trainer.step += 1
    return loss.detach()


def _observations(config: RLMixConfig, batch: int, num_classes: int) -> spaces.Space[Maps]:
    def box(low: float, high: float, *shape: int) -> spaces.Box:
        return spaces.Box(low, high, shape=shape, dtype=np.float32)

    maps = box(0, 1, batch * config.cells**2)
    parts: dict[str, spaces.Space[Any]] = {
        "saliency": maps,
        "logits": box(LOWEST_LOG, 0, batch * num_classes),
    }
    if config.observe_draws:
        parts["partner_saliency"] = maps
        parts["lam"] = box(0, 1, batch)
        parts["grid"] = box(1, 32, 1)
    return spaces.Dict(parts)  # type: ignore[return-value]  # of any dict


def _check(config: RLMixConfig, task: TaskConfig, model: nn.Module, *, image_size: int) -> None:
    """Refuse what the training run or its images do not have."""
    if task.trainer.accumulation > 1:
        raise ConfigError(
            f"task.trainer.accumulation: expected 1 with RL-Mix, got {task.trainer.accumulation}"
        )
    if max(config.grids) > image_size:
        raise ConfigError(
            f"rlmix.grids: expected at most {image_size} cells along a side of the images, "
            f"got {max(config.grids)}"
        )
    if config.layer is None:
        return
    # The root has no name, and its output is the logits.
    names = [name for name, _ in raw_module(model).named_modules() if name]
    if config.layer not in names:
        outer = ", ".join(name for name in names if "." not in name)
        raise ConfigError(
            f"rlmix.layer: expected a module of the network ({outer}, ...), got {config.layer!r}"
        )
    if task.trainer.compile and config.reward != "validation_gain":
        raise ConfigError(
            "rlmix.layer: expected null with task.trainer.compile and a similarity (compiled "
            f"networks show no layers), got {config.layer!r}"
        )
