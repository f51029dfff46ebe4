"""One training step, from top to bottom: fetch, mix, forward, loss, backward, update, average.

`TrainingStep.__call__` is the whole step. Its stages follow in the order in which they run, then
what lasts from step to step, and last what is set up once.

Shape suffixes: B images of a micro-batch, C channels, H rows, W columns, K classes.
"""

import contextlib
import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from automix.configuration.operators import OperatorOptions
from automix.configuration.trainer import TrainerConfig
from automix.data.batches import TrainingBatches
from automix.mixing import (
    StepKey,
    draw_choice,
    draw_decision,
    mix_step,
)
from automix.mixture import Mixing, Mixture
from automix.models.layers import checkpoint_gradients_
from automix.models.networks import draws_nothing
from automix.network_outputs import ClassifierOutput, read_output
from automix.operator_info import OPERATOR_FACTS, OperatorFacts
from automix.operators.manifold_mixup import INPUT, FeatureBlend, features_blended, mixing_layers
from automix.operators.mixup_cutmix import MixupDraws
from automix.operators.types import MixedBatch
from automix.random_streams import Stream, derived_seed, restored_generators
from automix.saliency.attention import AttentionRecorder
from automix.saliency.sources import CachedSource, SaliencySource
from automix.training.attention_labels import PastedLabels, targets_by_attention
from automix.training.carried import Carried, CarriedState
from automix.training.criterion import Criterion
from automix.training.distributed import (
    copy_from_main_,
    current_world,
    distributed_model,
    gather_on_main,
    sum_over_processes_,
)
from automix.training.metrics import RunningSums
from automix.training.mixers.learned import LearnedMixer
from automix.training.precision import (
    fast_products,
    passes_in,
    resolved_precision,
    time_convolutions,
)
from automix.training.targets import LabelPairs, Targets
from automix.training.updates import (
    AveragedWeights,
    constant,
    frozen_parameters,
    make_optimizer,
    reset_optimizer_,
    set_learning_rates_,
)


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """The images of one forward pass, as the network gets them."""

    images: Tensor  # (B, C, H, W) float32
    targets: Targets
    labels: Tensor  # (B,) int64, the images' own classes
    key: StepKey
    is_mixed: bool
    # Weight of Decoupled Mixup's term; above 0 the targets are pairs.
    decoupled_eta: float = 0.0
    # Layer whose output is blended, by which draws; None where the images are all that is mixed.
    blend: FeatureBlend | None = None
    # What attention needs to weigh the labels by; None where they are those of the area.
    pasted: PastedLabels | None = None
    # The images before they were mixed, where their loss is added.
    clean: "MicroBatch | None" = None


class UpdatesState(TypedDict):
    """State of the weight updates; ``average`` and ``scaler`` are empty where unused."""

    average: dict[str, Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]


class StepState(TypedDict):
    """Everything that a step changes; ``shares`` holds the micro-batches of all processes."""

    model: dict[str, Tensor]
    updates: UpdatesState
    shares: list[CarriedState]


class TrainingStep:
    """Does optimizer steps on one classifier.

    The stages are public, so that a loop which puts something between them can call them itself.

    Attributes:
        model: the raw module, whose weights are trained, saved and asked for saliency.
        averaged: moving average of the weights, if the configuration asks for one.
        total_steps: optimizer steps of the whole training run.
        precision: that of the training passes on this device.
        options: of the operators.
        mixer: reworks every mixed batch of two parents, if there is one; whoever sets it keeps its
            state.
    """

    mixer: LearnedMixer | None = None

    def __init__(
        self,
        model: nn.Module,
        batches: TrainingBatches,
        *,
        saliency: SaliencySource,
        config: TrainerConfig,
        refresh_every: int = 1,
        options: OperatorOptions | None = None,
    ) -> None:
        """Wrap ``model``, which is on its device, as ``config`` and the processes require.

        Args:
            model: maps (B, C, H, W) float32 images to (B, K) logits, or to what holds them
                (`automix.network_outputs`).
            batches: on the device of the model.
            saliency: source of saliency maps.
            config: optimizer, precision and averaging.
            refresh_every: steps for which a batch and its saliency maps are kept.
            options: of operators; None for the defaults.

        Raises:
            ConfigError: the device cannot compute in the precision of ``config``, or there is not
                one weight per class.
        """
        self.model, self.config, self.batches, self.saliency = model, config, batches, saliency
        self.total_steps = config.epochs * batches.layout.steps_per_epoch
        self._device = next(model.parameters()).device
        self.precision = resolved_precision(config.precision, self._device)
        time_convolutions(self._device)
        self._format = torch.channels_last if config.channels_last else torch.contiguous_format
        model.to(memory_format=self._format)
        if config.gradient_checkpointing:
            checkpoint_gradients_(model)
        self._distributed = distributed_model(model, self._device)
        forward = self._plain_forward = self._distributed or model
        # Launched as one graph, the kernels of a pass wait for the host once instead of each.
        mode: dict[str, Any] = {"mode": "reduce-overhead"} if config.cuda_graphs else {}
        self._forward: Callable[..., object] = (
            torch.compile(forward, **mode) if config.compile else forward
        )
        self._draws_nothing = draws_nothing(model)
        self._statistics = _batch_norm_statistics(model)
        averaged = {id(tensor) for tensor in self._statistics}
        self._other_buffers = [b for b in model.buffers() if id(b) not in averaged]
        self.criterion = Criterion(config, batches.class_counts, device=self._device)
        self.refresh_every = refresh_every
        self.options = options or OperatorOptions()
        self._carried = [
            Carried(CachedSource(saliency, refresh_every=refresh_every))
            for _ in range(batches.layout.accumulation)
        ]
        self.optimizer = make_optimizer(model, config)
        self.averaged = None
        if config.ema_decay:
            decay, warmup = config.ema_decay, config.ema_warmup
            self.averaged = AveragedWeights(model, decay=decay, warmup=warmup)
        # Disabled, it passes losses and steps through; float16 needs it, see `backward`.
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=self.precision == "fp16")
        self._first_scaler = self._scaler.state_dict()

    def __call__(self, mixture: Mixture, sums: RunningSums, *, seed: int, step: int) -> None:
        """Do optimizer step ``step`` (from 0) of run ``seed``, mixing as ``mixture`` says.

        Nothing below waits for the device: the host launches kernels ahead of it, and whoever
        reads ``sums`` waits once, for as many steps as went into them.
        """
        for number in range(len(self._carried)):
            # 1. Fetch: images are named by (seed, step, number), so there is no position in a
            # data loader to save, and a resumed run gets the same ones.
            images, labels, key = self.fetch(seed=seed, step=step, number=number)
            # 2. Mix: draws come from a generator of the same key, and each micro-batch draws for
            # itself, so that four micro-batches mix as four processes do.
            batch = self.mix(mixture, images, labels, key=key, number=number)
            # Processes exchange gradients (all-reduce) in the backward pass of the last
            # micro-batch only; before it the gradients would be sent to be added to.
            with self.keeps_gradients(is_last=number == len(self._carried) - 1):
                # 3. Forward: in lower precision if configured; the weights stay float32.
                output = self.forward(batch)
                # 4. Loss: cross-entropy with the mixed targets, in float32.
                loss = self.loss(output, batch)
                # 5. Backward: gradients of the micro-batches add up in the weights' `.grad`.
                self.backward(loss)
            sums.add(loss, output.logits, batch.labels, is_mixed=batch.is_mixed)
        # 6. Update: unscale, clip, set the learning rate, step, forget the gradients.
        self.update(step)
        # 7. Average: batch-norm statistics over processes, then the weights over steps.
        self.average(step)

    def fetch(self, *, seed: int, step: int, number: int = 0) -> tuple[Tensor, Tensor, StepKey]:
        """Return images, labels and the key of micro-batch ``number`` of a step.

        Returns:
            (B, C, H, W) float32 images in the memory format of the network, (B,) int64 labels.
        """
        carried = self._carried[number]
        # A batch is kept for `refresh_every` steps, because its saliency maps are; other operators
        # see the same batches.
        batch_number = step // self.refresh_every
        carried.saliency.hold(batch_number)
        key = self.batches.layout.key(seed, batch_number, number)
        batch = carried.batch if carried.batch_key == key else None
        if batch is None:
            batch = self.batches.batch(key)
        if self.refresh_every > 1:
            carried.batch_key, carried.batch = key, batch
        images = self.in_memory_format(batch.images)
        return images, batch.labels, StepKey(seed=seed, step=step, rank=key.micro_batch)

    def in_memory_format(self, images_BCHW: Tensor) -> Tensor:
        """Return the images in the memory format of the network."""
        return images_BCHW.contiguous(memory_format=self._format)

    def mix(
        self,
        mixing: Mixing,
        images_BCHW: Tensor,
        labels_B: Tensor,
        *,
        key: StepKey,
        number: int = 0,
        maps_BHW: Tensor | None = None,
        mixed: MixedBatch | None = None,
    ) -> MicroBatch:
        """Mix what `fetch` returned as a decision or mixture says, with its probability.

        ``maps_BHW`` are the saliency maps and ``mixed`` the mixed batch, where somebody who trains
        several classifiers has computed them already.
        """
        carried, mixture = self._carried[number], Mixture.of(mixing)
        decision = draw_decision(mixture, key)
        if decision is None:
            return MicroBatch(images_BCHW, labels_B, labels_B, key, is_mixed=False)
        if mixed is None:
            mixed = mix_step(
                decision,
                images_BCHW,
                labels_B,
                key=key,
                num_classes=self.batches.num_classes,
                # That of the raw module: a pass through the wrappers would sync gradients.
                model=self.model,
                saliency=carried.saliency if maps_BHW is None else lambda *_: maps_BHW,
                previous=carried.previous,
                # Rows of several labels are mixed as rows: a row is no pair of classes.
                with_targets=mixture.keeps_batches or labels_B.ndim == 2,
                options=self.options,
            )
        # RecursiveMix pastes the last mixed batch, whichever operator of its mixture mixed it. It
        # is kept no longer than an operator needs it.
        carried.previous = mixed if mixture.keeps_batches else None
        facts = OPERATOR_FACTS[decision.operator]
        if facts.learns:
            # What it learns is of this training run: it is in the checkpoint, and begins anew.
            mixer: LearnedMixer | None = carried.mixer_for(images_BCHW, key)
        else:
            mixer = self.mixer
        if mixer is not None:
            progress = key.step / self.total_steps
            mixed = mixer.rework(
                self.model, images_BCHW, labels_B, mixed, key=key, progress=progress
            )
        targets, eta = self._targets(mixed, labels_B, facts)
        clean = MicroBatch(images_BCHW, labels_B, labels_B, key, is_mixed=False)
        blend = self._blend(mixed, key) if facts.mixes_features else None
        return MicroBatch(
            images_BCHW if blend else mixed.images,
            targets,
            labels_B,
            key,
            is_mixed=True,
            decoupled_eta=eta,
            blend=blend,
            pasted=self._pasted(mixed, labels_B) if facts.pastes else None,
            clean=clean if self.config.clean_loss else None,
        )

    def _targets(
        self, mixed: MixedBatch, labels_B: Tensor, facts: OperatorFacts
    ) -> tuple[Targets, float]:
        """Return the targets, and the weight of Decoupled Mixup's term."""
        if not facts.mixes_pairs or labels_B.ndim == 2:
            return mixed.targets, 0.0
        pairs = LabelPairs(labels_B, labels_B.index_select(0, mixed.partner), mixed.lam)
        is_decoupled = self.config.loss == "decoupled"
        return pairs, (self.config.decoupled_eta or facts.decoupled_eta) if is_decoupled else 0.0

    def _pasted(self, mixed: MixedBatch, labels_B: Tensor) -> PastedLabels | None:
        if (weight := self.options.attention_labels) == 0:
            return None
        assert mixed.mask is not None
        partner = labels_B.index_select(0, mixed.partner)
        return PastedLabels(LabelPairs(labels_B, partner, mixed.lam), mixed.mask, weight)

    def _blend(self, mixed: MixedBatch, key: StepKey) -> FeatureBlend | None:
        """Draw the layer of Manifold Mixup; None at the input, where the images are mixed."""
        layer = draw_choice(self._mixing_layers, key)
        if layer == INPUT:
            return None
        return FeatureBlend(layer, MixupDraws(mixed.partner, mixed.lam))

    @functools.cached_property
    def _mixing_layers(self) -> tuple[str, ...]:
        return mixing_layers(self.model, self.options.manifold_mixup.layers)

    def keeps_gradients(self, *, is_last: bool) -> contextlib.AbstractContextManager[None]:
        """Keep the gradients of a block in this process, unless it is the last of its step."""
        if self._distributed is None or is_last:
            return contextlib.nullcontext()
        return self._distributed.no_sync()

    def forward(self, batch: MicroBatch) -> ClassifierOutput:
        """Return (B, K) logits, and those of auxiliary heads, in the precision of the passes."""
        # Dropout and stochastic depth draw from the global generators: seeded for this pass and
        # restored after it (5 microseconds on a CPU), a pass is a function of key and weights.
        key = batch.key
        # Without a graph through a frozen body the backward pass is that of the head. Processes
        # wait for all gradients, though, and layers that compute again would find other flags.
        needs_all = self._distributed is not None or self.config.gradient_checkpointing
        frozen = constant([] if needs_all else self._frozen(key.step))
        # A compiled network would not call the hook of the layer, and its attention is not heard.
        run = self._plain_forward if batch.blend or batch.pasted else self._forward
        blended = features_blended(self.model, batch.blend)
        recorder = AttentionRecorder(len(batch.images), last_only=True) if batch.pasted else None
        listening = recorder or contextlib.nullcontext()
        if self._draws_nothing:
            with self.autocast(), frozen, blended, listening:
                output = read_output(run(batch.images))
        else:
            seed = derived_seed(key.seed, Stream.NETWORK, rank=key.rank, step=key.step)
            with restored_generators(self._device), self.autocast(), frozen, blended, listening:
                torch.default_generator.manual_seed(seed)
                if self._device.type != "cpu":
                    torch.get_device_module(self._device).manual_seed(seed)
                output = read_output(run(batch.images))
        return output._replace(attention=recorder.last_layer()) if recorder else output

    def train_mode(self) -> None:
        """Put the network in training mode, except batch norms whose statistics are frozen."""
        self.model.train()
        if self.config.freeze_batch_norm:
            for module in self.model.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()

    def _frozen(self, step: int) -> list[Tensor]:
        return frozen_parameters(self.optimizer, self.config, step / self.total_steps)

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Run a block in the precision of the training passes."""
        return passes_in(self.precision, self._device)

    def loss(self, output: ClassifierOutput, batch: MicroBatch) -> Tensor:
        """Return the training loss of a micro-batch, a float32 scalar in nats."""
        targets = batch.targets
        if batch.pasted is not None and output.attention is not None:
            targets = targets_by_attention(batch.pasted, output.attention)
        loss = self.criterion(output.logits, targets, decoupled_eta=batch.decoupled_eta)
        # Of the same mixed targets. A weight of 0 keeps the heads in the graph: several processes
        # wait for the gradient of every parameter.
        for logits_BK in output.auxiliary:
            auxiliary_loss = self.criterion(logits_BK, targets)
            loss = torch.add(loss, auxiliary_loss, alpha=self.config.auxiliary_weight_or_default)
        if batch.clean is not None:
            clean_loss = self.loss(self.forward(batch.clean), batch.clean)
            loss = torch.add(loss, clean_loss, alpha=self.config.clean_loss)
        return loss

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of the mean loss of one micro-batch."""
        # The mean over the step is the mean of M micro-batch means: divide by M here, and the sum
        # of M backward passes is the gradient of the whole batch.
        if self.config.accumulation > 1:
            loss = loss / self.config.accumulation
        # A layer that is computed again takes its batch into the batch-norm statistics again.
        again = self.config.gradient_checkpointing
        kept = [(buffer, buffer.clone()) for buffer in self.model.buffers()] if again else []
        # Gradients below 6e-8 are zero in float16; scaled by a power of two they are not.
        with fast_products(self._device):
            torch.autograd.backward(self._scaler.scale(loss))
        for buffer, value in kept:
            buffer.copy_(value)

    def update(self, step: int) -> None:
        """Change the weights by their gradients, and forget the gradients."""
        # Without a gradient the optimizer leaves a weight, and its state, alone.
        for parameter in self._frozen(step):
            parameter.grad = None
        if self.config.max_grad_norm is not None:
            # The norm to clip is that of the true gradient of the whole step: after the last
            # micro-batch, summed over processes, and without the scale of the loss.
            self._scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm)
        rate = self.config.learning_rate_at(step / self.total_steps)
        set_learning_rates_(self.optimizer, rate)
        # If float16 gradients overflowed, the device skips the step and lowers the scale of later
        # losses; the host never learns of it.
        self._scaler.step(self.optimizer)
        self._scaler.update()
        # As `zero_grad`, whose bookkeeping takes longer than this on a small network.
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    @torch.no_grad()
    def average(self, step: int) -> None:
        """Average the buffers of the processes, then take the weights into the moving average."""
        # All-reduced gradients keep the weights of all processes equal; buffers need this. Then
        # all hold the same bits between steps, and rank 0 can save for all.
        size = current_world().size
        if size > 1:
            if self._statistics:
                flat = torch.cat([tensor.flatten() for tensor in self._statistics])
                means = sum_over_processes_(flat).div_(size)
                parts = torch.split(means, [tensor.numel() for tensor in self._statistics])
                for tensor, part in zip(self._statistics, parts, strict=True):
                    tensor.copy_(part.view_as(tensor))
            copy_from_main_(self._other_buffers)
        if self.averaged:
            self.averaged.update_(step)

    def reset(self) -> None:
        """Start over in place from the current weights: nothing is allocated or compiled again."""
        for carried in self._carried:
            carried.clear()
        self.optimizer.zero_grad()
        reset_optimizer_(self.optimizer)
        self._scaler.load_state_dict(self._first_scaler)
        if self.averaged:
            self.averaged.copy_()

    def state_dict(self) -> StepState:
        """Return the state, without copying tensors; reads the loss scale from the device.

        Every process must call this; what rank 0 gets is complete.
        """
        by_rank = gather_on_main([carried.state_dict() for carried in self._carried])
        return StepState(
            model=self.model.state_dict(),
            updates=UpdatesState(
                average=self.averaged.model.state_dict() if self.averaged else {},
                optimizer=self.optimizer.state_dict(),
                scaler=self._scaler.state_dict(),
            ),
            # Micro-batch 0 of every process, then micro-batch 1 of every process: as `BatchLayout`.
            shares=[state for of_number in zip(*by_rank, strict=True) for state in of_number],
        )

    def load_state_dict(self, state: StepState) -> None:
        """Resume from the state of a step of the same configuration, processes and data."""
        self.model.load_state_dict(state["model"])
        updates, layout = state["updates"], self.batches.layout
        self.optimizer.zero_grad()
        # The optimizer keeps the tensors that it is given.
        self.optimizer.load_state_dict(copy.deepcopy(updates["optimizer"]))
        self._scaler.load_state_dict(updates["scaler"])
        if self.averaged:
            self.averaged.model.load_state_dict(updates["average"])
        for number, carried in enumerate(self._carried):
            index = number * layout.world_size + layout.rank
            carried.load_state_dict(state["shares"][index], device=self._device)


def _batch_norm_statistics(model: nn.Module) -> list[Tensor]:
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    pairs = [(norm.running_mean, norm.running_var) for norm in norms]
    return [tensor for pair in pairs for tensor in pair if tensor is not None]
