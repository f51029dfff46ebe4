"""The check of a network before a run: it is built, and given two images."""

import warnings
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from automix.configuration.task import TaskConfig
from automix.data.batches import BatchLayout, class_counts
from automix.data.splits import SearchData
from automix.errors import ConfigError
from automix.first_batch import rehearse, unpaired
from automix.mixing import StepKey
from automix.models.build import build_model
from automix.models.layers import checkpoint_gradients_
from automix.models.patches import options_for
from automix.network_outputs import ClassifierOutput, read_output
from automix.operator_info import OPERATOR_FACTS, Operator
from automix.operators.manifold_mixup import INPUT, check_layers, mixing_layers
from automix.random_streams import Stream, restored_generators, stream_generator
from automix.saliency.attention import AttentionRecorder
from automix.saliency.gradient import evaluation_mode
from automix.saliency.sources import build_source
from automix.saliency.tokens import class_attention
from automix.training.criterion import Criterion, saliency_loss
from automix.training.distributed import current_world
from automix.training.trainer import training_device


def check_model(
    task: TaskConfig, data: SearchData, *, operators: Collection[Operator] = ()
) -> None:
    """Build the classifier and pass two images through it, before anything is written.

    A network of a library may be unknown to the version that is installed, or refuse images of
    this size or batches of one. Then the images are mixed by each of the operators that the
    training runs may use, with a saliency pass if one needs it.

    Raises:
        ConfigError: there is no such classifier, it does not take such batches or the format, an
            operator cannot mix them, or there is not one weight for each class.
    """
    batch = min(2, task.trainer.batch_size, len(data.train))
    model = build_model(
        task.model,
        num_classes=data.num_classes,
        channels=data.image_shape[0],
        image_size=data.image_shape[1:],
        generator=stream_generator(0, Stream.INITIALIZATION),
    )
    _check_loss(task, data)
    if task.trainer.gradient_checkpointing:
        checkpoint_gradients_(model)
    # PyTorch 2.15 writes past the end of a buffer in the gradient of such weights.
    is_fragile = task.trainer.channels_last and training_device().type == "cpu"
    for name, layer in model.named_modules() if is_fragile else ():
        is_narrow = isinstance(layer, nn.Conv2d) and layer.in_channels < 8
        if is_narrow and layer.kernel_size == (1, 1) and layer.stride != (1, 1):
            raise ConfigError(
                "task.trainer.channels_last: expected false on a CPU with fewer than 8 channels "
                f"in a strided 1x1 convolution, got {layer.in_channels} in {name}"
            )
    _check_outputs(task, data, model, batch=batch)
    _check_operators(task, data, model, operators=sorted(operators))


def _check_outputs(task: TaskConfig, data: SearchData, model: nn.Module, *, batch: int) -> None:
    """Refuse a network that gives no logits of the classes, in training or in evaluation."""
    images = torch.zeros(batch, *data.image_shape)
    try:
        # Dropout draws from the global generator.
        with torch.no_grad(), restored_generators(torch.device("cpu")):
            trained = _checked_output(model(images), (batch, data.num_classes))
            if task.model.factory is not None:
                # What it returns then may be of another type.
                with evaluation_mode(model):
                    _checked_output(model(images), (batch, data.num_classes))
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        shape = " x ".join(map(str, data.image_shape))
        field = "factory" if task.model.factory is not None else "name"
        raise ConfigError(
            f"task.model.{field}: expected a classifier that trains on batches of {batch} images "
            f"of {shape}, got {task.model.title!r}: {reason}"
        ) from None
    if task.trainer.auxiliary_weight is not None and not trained.auxiliary:
        raise ConfigError(
            "task.trainer.auxiliary_weight: expected nothing for a network without auxiliary "
            f"logits, got {task.trainer.auxiliary_weight:g}"
        )


def _checked_output(output: object, expected: tuple[int, int]) -> ClassifierOutput:
    result = read_output(output)
    if (shape := tuple(result.logits.shape)) != expected:
        raise ValueError(f"its output is no logits of {expected[1]} classes, but {shape}")
    return result


def _check_loss(task: TaskConfig, data: SearchData) -> None:
    loss = task.trainer.loss
    if data.has_label_rows and loss != "binary_cross_entropy":
        raise ConfigError(
            "task.trainer.loss: expected binary_cross_entropy for images with several labels "
            f"(data.labels), got '{loss}'"
        )
    if not data.has_label_rows and loss == "binary_cross_entropy":
        raise ConfigError(
            "task.trainer.loss: expected another loss for images with one class each, got "
            f"'{loss}', which is for those of a file of labels (data.labels)"
        )
    Criterion(task.trainer, class_counts(data.train), device=torch.device("cpu"))


def _check_operators(
    task: TaskConfig, data: SearchData, model: nn.Module, *, operators: Sequence[Operator]
) -> None:
    layout = BatchLayout.fitting(
        len(data.train),
        task.trainer.batch_size,
        accumulation=task.trainer.accumulation,
        world_size=(world := current_world()).size,
        rank=world.rank,
    )
    if (operator := unpaired(operators, layout.micro_batch_size)) is not None:
        raise ConfigError(
            "task.trainer.batch_size: expected micro-batches of at least 2 images for "
            f"{operator.value}, got 1"
        )
    batch = min(2, layout.micro_batch_size)
    generator = stream_generator(0, Stream.PROBE)
    options_for(task.operators, model, image_size=data.image_shape[1:])
    if task.operators.attention_labels and any(OPERATOR_FACTS[it].pastes for it in operators):
        images = torch.rand(batch, *data.image_shape, generator=generator)
        _check_attention_labels(task, model, images)
    if Operator.MANIFOLD_MIXUP in operators:
        images = torch.rand(batch, *data.image_shape, generator=generator)
        _check_manifold_mixup(task, model, images)
    # A network at its first weights may have uniform maps, of which a rehearsal warns.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            rehearse(
                operators,
                torch.rand(batch, *data.image_shape, generator=generator),
                torch.eye(data.num_classes)[:batch] if data.has_label_rows else torch.arange(batch),
                key=StepKey(seed=0, step=0),
                num_classes=data.num_classes,
                model=model,
                saliency=build_source(task.saliency, loss=saliency_loss(task.trainer)),
            )
        except (TypeError, ValueError) as error:
            raise ConfigError(f"task: {error}") from None


def _check_attention_labels(task: TaskConfig, model: nn.Module, images_BCHW: Tensor) -> None:
    """Refuse a network whose attention cannot weigh labels."""
    recorder = AttentionRecorder(len(images_BCHW), last_only=True)
    try:
        with evaluation_mode(model), torch.no_grad(), recorder:
            model(images_BCHW)
        class_attention(recorder.last_layer(), *images_BCHW.shape[2:])
    except ValueError as error:
        reason = str(error).removeprefix("saliency: ")
        raise ConfigError(
            f"task.operators.attention_labels: {reason} in {task.model.title!r}"
        ) from None


def _check_manifold_mixup(task: TaskConfig, model: nn.Module, images_BCHW: Tensor) -> None:
    try:
        layers = mixing_layers(model, task.operators.manifold_mixup.layers)
        check_layers(model, layers, images_BCHW)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"task.operators.manifold_mixup.layers: {error}") from None
    # What is computed again in the backward pass would not be blended again.
    if task.trainer.gradient_checkpointing and set(layers) != {INPUT}:
        raise ConfigError(
            "task.trainer.gradient_checkpointing: expected false with manifold_mixup in a "
            f"hidden layer, got true with {', '.join(layers)}"
        )
