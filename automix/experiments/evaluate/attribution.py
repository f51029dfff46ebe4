"""Tasks of an evaluation that check saliency maps: removal of cells, and other training runs."""

import functools
import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from automix.configuration.task import SaliencyConfig
from automix.errors import CheckpointError, ConfigError
from automix.evaluation.attribution import NUM_ORDERS, map_agreement, removal_curves
from automix.evaluation.inference import EvaluationImages, ImageBatch
from automix.evaluation.localization import last_feature_layer
from automix.evaluation.occlusion import FRACTIONS
from automix.experiments.common.saved_classifier import SavedClassifier, load_saved_classifier
from automix.experiments.evaluate.config import EvaluateConfig, EvaluationTask
from automix.experiments.evaluate.plan import (
    GRADIENT_PASSES,
    EvaluationInput,
    Json,
    TaskPlan,
    WorkUnit,
    as_json,
    random_subset,
)
from automix.operator_info import SaliencyKind
from automix.operators.sampling import pool_cells
from automix.saliency.sources import SaliencySource, build_source

_LOG = logging.getLogger(__name__)


def plan_saliency_removal(source: EvaluationInput, config: EvaluateConfig) -> TaskPlan:
    """Return whether removing the most salient cells hurts more than removing random ones.

    Raises:
        ConfigError: a source that was named does not fit the network, or there is one image.
    """
    classifier = source.classifier
    images = _images(source, config)
    # The cells of the operators: as many along the shorter side.
    size = -(-min(images.images.shape[-2:]) // config.attribution.grid)

    def run(maps: SaliencySource) -> Json:
        curves = removal_curves(
            classifier.predict,
            functools.partial(_maps_of, classifier, maps),
            images,
            patch_size=size,
            fill=classifier.data.statistics.mean,
            seed=config.seed,
        )
        return as_json(curves)

    sources = _sources(classifier, images, config)
    passes = GRADIENT_PASSES + len(FRACTIONS) * (2 + NUM_ORDERS)
    units = tuple(
        WorkUnit(name=name, passes=passes * len(images), run=functools.partial(run, sources[name]))
        for name in sources
    )

    def combine(results: Sequence[Json]) -> Json:
        by_source = dict(zip(sources, results, strict=True))
        return {"num_images": len(images), "patch_size": size, "sources": by_source}

    return TaskPlan(task=EvaluationTask.SALIENCY_REMOVAL, units=units, combine=combine)


def plan_attribution_consistency(source: EvaluationInput, config: EvaluateConfig) -> TaskPlan:
    """Return how far the maps of this run agree with those of others that saw the same data.

    Raises:
        ConfigError: a source that was named does not fit the network, or there is one image.
        CheckpointError: another run has other data.
    """
    images, grid = _images(source, config), config.attribution.grid
    # Of the image alone: the same for every run.
    sources = _sources(source.classifier, images, config)
    sources.pop(SaliencyKind.SPECTRAL_RESIDUAL.value, None)
    if not sources:
        raise ConfigError(
            "attribution.sources: expected one that reads the network with the task "
            "'attribution_consistency', got spectral_residual"
        )
    others = [
        load_saved_classifier(run, data_path=config.data_path, factory=config.factory)
        for run in config.attribution.runs
    ]
    for run, other in zip(config.attribution.runs, others, strict=True):
        if other.data.fingerprint != source.classifier.data.fingerprint:
            raise CheckpointError(f"{run}: expected a run on the same data, got another")

    def run_unit(other: SavedClassifier) -> Json:
        agreements: Json = {}
        others_sources = _sources(other, images, config)
        for name in sources:
            pairs = [
                _cells(classifier, maps, images, grid)
                for classifier, maps in (
                    (source.classifier, sources[name]),
                    (other, others_sources[name]),
                )
            ]
            agreements[name] = as_json(map_agreement(*pairs))
        return agreements

    passes = 2 * GRADIENT_PASSES * len(sources) * len(images)
    units = tuple(
        WorkUnit(name=other.weights_hash, passes=passes, run=functools.partial(run_unit, other))
        for other in others
    )

    def combine(results: Sequence[Json]) -> Json:
        names = [run.resolve().name for run in config.attribution.runs]
        runs = [
            {"run": name, "sources": result} for name, result in zip(names, results, strict=True)
        ]
        return {"num_images": len(images), "grid": grid, "runs": runs}

    return TaskPlan(task=EvaluationTask.ATTRIBUTION_CONSISTENCY, units=units, combine=combine)


def _images(source: EvaluationInput, config: EvaluateConfig) -> EvaluationImages:
    images = random_subset(source.images, config.attribution.images, seed=config.seed)
    if len(images) < 2:
        raise ConfigError("attribution.images: expected at least 2 for an interval, got 1")
    return images


def _sources(
    classifier: SavedClassifier, images: EvaluationImages, config: EvaluateConfig
) -> dict[str, SaliencySource]:
    """Return the sources that are named or, where none are, those that the network has."""
    layer = last_feature_layer(classifier.model, classifier.prepare(images.images[:1]))
    sources: dict[str, SaliencySource] = {}
    for kind in config.attribution.sources or tuple(SaliencyKind):
        try:
            settings = SaliencyConfig(
                source=kind, layer=layer if kind is SaliencyKind.LAYER_GRADIENT else None
            )
            maps = build_source(settings)
            _maps_of(classifier, maps, next(images.part(0, 2).batches()))
        except (RuntimeError, ValueError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            if config.attribution.sources:
                raise ConfigError(
                    f"attribution.sources: expected sources that the network has, got "
                    f"{kind.value}: {reason}"
                ) from None
            _LOG.info("attribution: without %s: %s", kind.value, reason)
            continue
        sources[kind.value] = maps
    return sources


def _maps_of(classifier: SavedClassifier, maps: SaliencySource, batch: ImageBatch) -> Tensor:
    """Return maps of the class of the label, as operators take them in training."""
    model: nn.Module = classifier.model
    return maps(model, classifier.prepare(batch.images), batch.labels)


def _cells(
    classifier: SavedClassifier, maps: SaliencySource, images: EvaluationImages, grid: int
) -> Tensor:
    parts = [pool_cells(_maps_of(classifier, maps, batch), grid) for batch in images.batches()]
    return torch.cat(parts).flatten(1).cpu()
