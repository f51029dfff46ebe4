"""The configuration of `automix evaluate`. Free of torch, so that help texts load quickly."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from automix.configuration.base import Config
from automix.configuration.task import FactoryName
from automix.operator_info import SaliencyKind


class EvaluationTask(StrEnum):
    """An evaluation of a trained classifier."""

    CLASSIFICATION = "classification"
    """Accuracy, probabilities before and after temperature scaling, classes and groups."""

    CORRUPTIONS = "corruptions"
    PATCH_OCCLUSION = "patch_occlusion"
    OBJECT_OCCLUSION = "object_occlusion"
    ATTACKS = "attacks"
    LOCALIZATION = "localization"
    SALIENCY_REMOVAL = "saliency_removal"
    ATTRIBUTION_CONSISTENCY = "attribution_consistency"
    SEVERAL_LABELS = "several_labels"
    """Mean average precision, recalls and calibration, of images with several labels: their one
    task."""


class CorruptionsConfig(Config):
    """Errors under the 15 corruptions of CIFAR-C at 5 severities."""

    published: Path | None = None
    """Folder with the published arrays (fog.npy, ..., labels.npy of CIFAR-10-C or CIFAR-100-C),
    verified against their published checksums. Null: the test images under our own seeded
    implementations of the corruptions, whose errors are not comparable with those on the published
    arrays."""


class OcclusionConfig(Config):
    """Accuracy while parts of the image are hidden, filled with the mean color."""

    patch_size: Annotated[int, Field(ge=1)] | None = None
    """Side of a patch in pixels. Null: 1/14 of the shorter side, as 16 of 224 pixels."""

    object_from: Literal["boxes", "saliency"] | None = None
    """Definition of the object in object occlusion: boxes (a rectangle in the largest box of each
    image that has one) or saliency (the most salient patches first, by the spectral residual of the
    image, independent of the classifier). Null: boxes where a file of boxes is given, else
    saliency."""


class AttacksConfig(Config):
    """Accuracy under attacks in the maximum norm, in pixel space."""

    epsilon_levels: Annotated[float, Field(ge=0, le=255)] = 8.0
    """Largest change of a pixel value, in levels of 255: 8 is the usual 8/255."""

    step_levels: Annotated[float, Field(gt=0, le=255)] = 2.0
    """Step size of PGD, in levels of 255."""

    steps: Annotated[int, Field(ge=1)] = 20
    """Steps of PGD."""

    restarts: Annotated[int, Field(ge=1)] = 3
    """Random restarts of PGD; an image counts as robust if none of them succeeds."""

    images: Annotated[int, Field(ge=1)] | None = 1_000
    """Size of the random subset of the test images that is attacked; null: all. PGD costs about 3 x
    steps x restarts forward passes per image."""

    autoattack: bool = False
    """Run the standard version of AutoAttack as well (https://arxiv.org/abs/2003.01690); requires
    the extra autoattack, and takes about 100 times as long as PGD."""


class LocalizationConfig(Config):
    """Boxes read off class activation maps, against true boxes."""

    layer: str | None = Field(default=None, min_length=1)
    """Module at whose output the maps are computed, such as stage3. Null: the last one whose output
    is a feature map."""


class AttributionConfig(Config):
    """Checks of the saliency maps that operators read."""

    grid: Annotated[int, Field(ge=2, le=64)] = 4
    """Cells along the shorter side of an image, which are removed or compared."""

    images: Annotated[int, Field(ge=2)] | None = 1_000
    """Size of the random subset of the test images whose maps are checked; null: all."""

    sources: tuple[SaliencyKind, ...] = ()
    """Saliency methods that are checked: input_gradient, layer_gradient (at the last feature map),
    reduced_gradient, spectral_residual. If empty, all that the network has."""

    runs: tuple[Path, ...] = ()
    """Folders of other replays on the same data, such as other seeds, whose maps are compared."""


class EvaluateConfig(Config):
    """Evaluate the trained classifier of a replay run on the test split."""

    tasks: tuple[EvaluationTask, ...] = ()
    """Evaluations to run: classification, corruptions, patch_occlusion, object_occlusion, attacks,
    localization, saliency_removal, attribution_consistency. If empty, all; localization only where
    a file of boxes is given, attribution_consistency only with attribution.runs."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Random seed of corruptions, occlusions, attacks and subsets of the images."""

    images: Annotated[int, Field(ge=1)] | None = None
    """Size of the random subset of the test images that is evaluated; null: all."""

    boxes: Path | None = None
    """CSV or JSON file with the bounding boxes of objects in test images, see
    docs/evaluation.md."""

    groups: Path | None = None
    """CSV or JSON file with a group for each test image (image,group), for per-group and
    worst-group accuracy. Null: the groups are the classes."""

    data_path: Path | None = None
    """Folder of the dataset, if it has moved since the training run. Null: the one in the
    configuration of the run."""

    factory: FactoryName | None = None
    """Function that the network of the run was built by (task.model.factory), package.module:
    function. Its code is run, so that it has to be named here: the file of a run cannot ask for
    it."""

    corruptions: CorruptionsConfig = Field(default_factory=CorruptionsConfig)
    """Corrupted images."""

    occlusion: OcclusionConfig = Field(default_factory=OcclusionConfig)
    """Occluded patches and objects."""

    attacks: AttacksConfig = Field(default_factory=AttacksConfig)
    """Strength and length of the attacks."""

    localization: LocalizationConfig = Field(default_factory=LocalizationConfig)
    """Class activation maps."""

    attribution: AttributionConfig = Field(default_factory=AttributionConfig)
    """Saliency maps."""

    batch_size: Annotated[int, Field(ge=1)] = 500
    """Images per batch; memory and speed depend on it, results do not."""

    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """CPU threads. The last bits of the results depend on it."""

    @property
    def chosen_tasks(self) -> tuple[EvaluationTask, ...]:
        """Return what is measured, in the order of `EvaluationTask`."""
        if self.tasks:
            return tuple(task for task in EvaluationTask if task in self.tasks)
        hidden = {EvaluationTask.SEVERAL_LABELS}
        if not self.boxes:
            hidden.add(EvaluationTask.LOCALIZATION)
        if not self.attribution.runs:
            hidden.add(EvaluationTask.ATTRIBUTION_CONSISTENCY)
        return tuple(task for task in EvaluationTask if task not in hidden)

    @property
    def object_source(self) -> Literal["boxes", "saliency"]:
        """Return what object occlusion takes for the object."""
        return self.occlusion.object_from or ("boxes" if self.boxes else "saliency")

    @model_validator(mode="after")
    def _boxes_are_there_and_have_an_effect(self) -> "EvaluateConfig":
        if EvaluationTask.LOCALIZATION in self.chosen_tasks and not self.boxes:
            raise ValueError("expected a file of boxes with the task 'localization', got none")
        if self.occlusion.object_from == "boxes" and not self.boxes:
            raise ValueError(
                "expected a file of boxes with occlusion.object_from 'boxes', got none"
            )
        uses = EvaluationTask.LOCALIZATION in self.chosen_tasks or (
            EvaluationTask.OBJECT_OCCLUSION in self.chosen_tasks and self.object_source == "boxes"
        )
        if self.boxes and not uses:
            raise ValueError(
                "expected no boxes without the tasks 'localization' or 'object_occlusion', "
                f"got {str(self.boxes)!r}"
            )
        return self

    @model_validator(mode="after")
    def _other_runs_are_there(self) -> "EvaluateConfig":
        if EvaluationTask.ATTRIBUTION_CONSISTENCY in self.tasks and not self.attribution.runs:
            raise ValueError(
                "expected attribution.runs with the task 'attribution_consistency', got none"
            )
        return self

    @model_validator(mode="after")
    def _options_have_an_effect(self) -> "EvaluateConfig":
        options: dict[EvaluationTask, object] = {
            EvaluationTask.CORRUPTIONS: self.corruptions.published,
            EvaluationTask.CLASSIFICATION: self.groups,
            EvaluationTask.LOCALIZATION: self.localization.layer,
            EvaluationTask.ATTACKS: self.attacks.autoattack or None,
            EvaluationTask.OBJECT_OCCLUSION: self.occlusion.object_from,
            EvaluationTask.ATTRIBUTION_CONSISTENCY: self.attribution.runs or None,
        }
        for task, option in options.items():
            if option is not None and task not in self.chosen_tasks:
                raise ValueError(
                    f"expected the task {task.value!r} with an option of it, got the tasks "
                    f"{', '.join(self.chosen_tasks)}"
                )
        return self


class EvaluateFlags(Config):
    """Flags of `automix evaluate`."""

    output: Path | None = None
    """Folder of the evaluation. Default: a folder in RUN named after the configuration. Finished
    parts in it are not run again."""

    dry_run: bool = False
    """Print the evaluations and the predicted time, and exit."""
