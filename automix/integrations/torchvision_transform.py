"""An operator as a torchvision transform of whole batches, for ``collate_fn`` or after the loader.

Shape suffixes: B batch, C channels, H rows, W columns, K classes.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import get_worker_info
from torchvision.transforms import v2

from automix.first_batch import (
    check_pairs,
    check_values,
    checked_batch,
    refuse_learning,
    whole_number,
)
from automix.integrations.progress import refuse_collator_of_trainer
from automix.operator_info import OPERATOR_FACTS, Operator
from automix.operators.registry import OPERATORS, checked_strength
from automix.operators.types import BatchShape
from automix.random_streams import Stream, stream_generator


class OperatorTransform(v2.Transform):  # type: ignore[misc]  # torchvision is not typed
    """Mixes a batch where ``v2.MixUp`` and ``v2.CutMix`` do: ``transform(images, labels)``.

    As in ``v2.Transform``, `make_params` draws all randomness and `transform` applies it. The draws
    do not come from the global generators but from the seed, the number of the call, and in a
    loader's worker from that worker's own seed, which the loader draws anew for each epoch.

    Examples:
        >>> transform = OperatorTransform("cutmix", num_classes=10)
        >>> images, targets = transform(torch.rand(8, 3, 32, 32), torch.arange(8))
        >>> images.shape, targets.shape
        (torch.Size([8, 3, 32, 32]), torch.Size([8, 10]))
    """

    def __init__(
        self,
        operator: Operator | str,
        *,
        num_classes: int | None,
        strength: float | None = None,
        seed: int = 0,
        rank: int = 0,
    ) -> None:
        """Take an operator that needs nothing but the batch.

        Args:
            operator: its name.
            num_classes: K; None where labels are (B, K) already.
            strength: the operator's one knob; its default where None.
            seed: names the draws.
            rank: number of this process among those that train together.

        Raises:
            ValueError: an unknown operator, a strength outside its range, an operator that reads
                saliency or the batch before, or a number that is not whole or too small.
        """
        super().__init__()
        self._strength = checked_strength(operator, strength)
        self._operator = Operator(operator)
        refuse_learning([self._operator])
        facts = OPERATOR_FACTS[self._operator]
        if facts.needs_saliency or facts.needs_previous or facts.mixes_features:
            needed = "the batch before" if facts.needs_previous else "a model"
            raise ValueError(
                f"operator: expected one that needs the batch alone, got {self._operator.value}, "
                f"which needs {needed}; a loader's worker has none. Mix after the loader, with "
                "automix.integrations.ScheduledMix"
            )
        if num_classes is not None:
            num_classes = whole_number("num_classes", num_classes, at_least=1)
        self.num_classes = num_classes
        self._key = (
            whole_number("seed", seed, at_least=0),
            whole_number("rank", rank, at_least=0),
        )
        self._num_calls = 0
        self._is_checked = False

    def forward(self, *inputs: Any) -> Any:
        """Return ``images, targets`` in the form they came in: two arguments, a tuple or a list.

        Images are (B, C, H, W) floating point, labels (B,) integers or (B, K) rows. Their values
        are checked in the first call, and the classes on a CPU in every call.

        Raises:
            TypeError: no batch of images and labels, or of another type.
            ValueError: another shape, or values out of range.
        """
        # As v2.MixUp takes them: ``transform(images, labels)`` or one ``(images, labels)``, which a
        # loader's default collate function makes a list.
        batch = inputs if len(inputs) > 1 else inputs[0]
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            got = type(batch).__name__
            got += f" of {len(batch)}" if isinstance(batch, tuple | list) else ""
            raise TypeError(f"batch: expected images and labels, got {got}")
        images_BCHW, targets = batch
        targets = checked_batch(images_BCHW, targets, num_classes=self.num_classes)
        if not self._is_checked:
            self._check_first(images_BCHW, targets)
        params = self.make_params([images_BCHW, targets])
        mixed: tuple[Tensor, Tensor] = self.transform((images_BCHW, targets), params)
        return list(mixed) if isinstance(batch, list) else mixed

    def _check_first(self, images_BCHW: Tensor, targets: Tensor) -> None:
        refuse_collator_of_trainer(knows_position=True)
        check_values(images_BCHW, targets, num_classes=self.num_classes)
        worker = get_worker_info()
        # The first batch of another worker may be the short last one of the epoch.
        if worker is None or worker.id == 0:
            check_pairs([self._operator], len(images_BCHW))
        self._is_checked = True

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Return the random parameters of a batch, under the key ``draws``."""
        images_BCHW: Tensor = flat_inputs[0]
        # Every worker counts its calls from 0. What sets the draws of workers and epochs apart is
        # the seed that the loader gives each worker in each epoch; it stands where the epoch would.
        worker = get_worker_info()
        seed, rank = self._key
        generator = stream_generator(
            seed,
            Stream.MIXING,
            rank=rank,
            epoch=0 if worker is None else worker.seed,
            step=self._num_calls,
            device=images_BCHW.device,
        )
        self._num_calls += 1
        shape = BatchShape(len(images_BCHW), *images_BCHW.shape[-2:])
        draw = OPERATORS[self._operator].draw
        return {"draws": draw(shape, strength=self._strength, generator=generator)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Apply what `make_params` drew to (images, labels)."""
        images_BCHW, targets = inpt
        # Of images or targets that are learned the gradient goes through.
        wants_gradient = images_BCHW.requires_grad or targets.requires_grad
        with torch.set_grad_enabled(wants_gradient and torch.is_grad_enabled()):
            mixed = OPERATORS[self._operator].apply(
                images_BCHW, targets, params["draws"], num_classes=self.num_classes
            )
        return mixed.images, mixed.targets
