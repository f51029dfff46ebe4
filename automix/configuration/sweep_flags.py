"""Flags of a sweep: where its cells run. Apart, so that no other command reads a task for them."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from automix.configuration.flags import SweepFolderFlags
from automix.configuration.task import ComputeConfig


class SweepFlags(SweepFolderFlags):
    """Flags of `automix ablate`."""

    workers: Annotated[int, Field(ge=1, le=1024)] = 2
    """Cells that run in parallel. The processes of each cell are set in its compute section."""

    compute: ComputeConfig = Field(default_factory=ComputeConfig)
    """Where cells run, and what is done when their processes die or hang: executor, address, gpus,
    timeout, max-failures, max-failures-in-all; threads: CPUs that a cell reserves on Ray."""

    devices: tuple[str, ...] = ()
    """Values of CUDA_VISIBLE_DEVICES, one per process; no more processes run than there are values.
    If empty, every process sees all devices."""

    dry_run: bool = False
    """Print the cells, their states and their predicted cost, and exit."""

    @model_validator(mode="after")
    def _compute_is_of_cells(self) -> Self:
        if {"workers", "population"} & self.compute.model_fields_set:
            raise ValueError(
                "expected --workers for the number of cells, and the compute section of the sweep "
                "for what each of them does, got compute.workers or compute.population"
            )
        if self.devices and self.compute.executor == "ray":
            raise ValueError("expected compute.gpus with executor ray, got devices")
        return self
