"""Whether a loop trains on the soft targets that it gets, seen from its first batch.

Shape suffixes: B batch, K classes.
"""

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class WatchedTargets(Tensor):
    """Targets that remember whether any function took them; they compute as plain tensors do."""

    is_used = False

    @classmethod
    def __torch_function__(
        cls,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return what ``func`` makes of the values, as plain tensors."""
        # No recursion and no change of type here: torch.compile follows this into one graph.
        for argument in (*args, *(kwargs or {}).values()):
            for value in argument if isinstance(argument, list | tuple) else (argument,):
                if isinstance(value, cls):
                    value.is_used = True
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        plain: Any = self.as_subclass(Tensor)
        copied: Tensor = plain.__deepcopy__(memo)
        return copied

    def __reduce_ex__(self, protocol: Any) -> Any:
        # As plain tensors, which are loaded without this module.
        plain: Any = self.as_subclass(Tensor)
        return plain.__reduce_ex__(protocol)


class TargetsInUse:
    """Tells a loop that mixes images and trains on something else than their targets.

    It says so once weights have changed, so that batches that are only looked at are no matter.
    Only the targets of the first batch are watched.
    """

    def __init__(self, model: nn.Module | None, optimizer: torch.optim.Optimizer | None) -> None:
        """Watch the weights of both, if there are any."""
        self._weights = [*model.parameters()] if model is not None else []
        if not self._weights and optimizer is not None:
            self._weights = [it for group in optimizer.param_groups for it in group["params"]]
        self._config = getattr(model, "config", None)
        self._is_due = bool(self._weights)
        self._first: WatchedTargets | None = None
        self._before: tuple[int, object] = 0, None

    def passed(self, targets_BK: Tensor) -> Tensor:
        """Return the targets of the next batch.

        Raises:
            RuntimeError: the network made a binary cross-entropy of the first ones.
        """
        if not self._is_due or targets_BK.requires_grad:
            return targets_BK
        if self._first is None:
            self._before = self._version(), getattr(self._config, "problem_type", None)
            self._first = targets_BK.as_subclass(WatchedTargets)
            return self._first
        self._judge(self._first)
        return targets_BK

    def _judge(self, first: WatchedTargets) -> None:
        version, problem = self._before
        kind = getattr(self._config, "problem_type", None)
        if kind != problem and kind == "multi_label_classification":
            raise RuntimeError(
                "config.problem_type: expected a loss for soft targets, got the network's own, "
                "which makes a binary cross-entropy of them; take "
                "torch.nn.functional.cross_entropy(outputs.logits, targets), and set problem_type "
                f"to {problem}"
            )
        # With accumulation the weights change later than the second batch.
        if first.is_used or self._version() != version:
            self._is_due, self._first = False, None
            if not first.is_used:
                warnings.warn(
                    "targets: expected a loss that takes the soft targets, got one that does not: "
                    "weights have changed since the first batch, whose targets nothing has used",
                    stacklevel=4,
                )

    def _version(self) -> int:
        # Counts changes in place, which is what optimizers make.
        return sum(weight._version for weight in self._weights)
