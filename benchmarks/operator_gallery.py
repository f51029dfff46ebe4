"""Pictures and cards of the operators in the documents.

``python -m benchmarks.operator_gallery`` writes `docs/operators.md` and `docs/operators/NAME.png`
from scikit-learn's digits. It takes seconds; the same code writes the same bytes.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from automix.data.load import digits
from automix.experiments.show import make_sheet
from automix.files import write_bytes, write_text
from automix.operator_info import OPERATOR_FACTS, Family, Operator, OperatorFacts
from automix.operators.registry import OPERATORS
from automix.reporting.contact_sheet import contact_sheet_png
from automix.saliency.sources import spectral_residual
from automix.schedule import Decision

DOCS = Path(__file__).parents[1] / "docs"
# Digits are 8 x 8 pixels, too few for cells, masks and shrunken images: they are enlarged first.
_SIDE = 48
_CLASSES = (0, 1, 3, 7)
# With it, no image is its own partner, but for one of R-Mix.
_SEED = 4
_FAMILIES = {
    Family.NONE: "",
    Family.RANDOM: "random",
    Family.SALIENCY_MAX: "by saliency, the largest",
    Family.SALIENCY_SAMPLED: "by saliency, sampled",
}
_HEAD = """# Operators

Each operator mixes a batch and its labels: what it takes from which image, and how its one knob,
the strength, is read. The pictures are of four digits, each operator at its default strength;
`automix show photos/` draws them of your images. Rows show the image, its partner, where the
partner is seen, the mixed image and its label. Operators that read saliency take it from the
network that is trained; here it is the square of the spectral residual, which needs none
([saliency.md](saliency.md)).

Options beside the strength are the fields of `task.operators`. In a vision transformer,
`patch_size` aligns boxes and holes to its patches, so that no token is of two images
([models.md](models.md)), and `attention_labels` weighs labels by attention
([saliency.md](saliency.md)).

`python -m benchmarks.operator_gallery` writes this page and its pictures.
"""


def main() -> None:
    """Write the page and the pictures into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=DOCS, help="folder of the page")
    output: Path = parser.parse_args().output
    pictures = output / "operators"
    pictures.mkdir(parents=True, exist_ok=True)
    mixing = [operator for operator in Operator if operator is not Operator.NONE]
    for operator in mixing:
        write_bytes(pictures / f"{operator.value}.png", picture(operator))
    write_text(output / "operators.md", page(mixing))


def page(operators: Sequence[Operator]) -> str:
    """Return the text of the page."""
    cards = (card(operator, OPERATOR_FACTS[operator]) for operator in operators)
    return "\n".join((_HEAD, *cards))


def card(operator: Operator, facts: OperatorFacts) -> str:
    """Return the section of an operator: picture, facts, and how it is called."""
    strength = facts.strength
    has_knob = strength.low < strength.high
    knob = (
        f"{strength.meaning}. {strength.low:g} to {strength.high:g}, default {strength.default:g}"
        if has_knob
        else "none"
    )
    needs = [
        name
        for name, is_needed in {
            "a saliency map": facts.needs_saliency,
            "the mixed batch of the step before": facts.needs_previous,
            "the forward pass of the network": facts.mixes_features,
            "a training run, in which its own network learns": facts.learns,
        }.items()
        if is_needed
    ]
    function = OPERATORS[operator].function
    return f"""## {facts.label}

![Rows of digits mixed by {facts.label}](operators/{operator.value}.png)

It {facts.summary}.

| | |
|---|---|
| name | `{operator.value}` |
| chooses pixels | {_FAMILIES[facts.family]} |
| strength | {knob} |
| needs | {" and ".join(needs) or "images and labels alone"} |
| images per label | {"two" if facts.mixes_pairs else "two or more"} |
| function | `{function.__module__}.{function.__name__}` |
| paper | <{facts.paper}> |
"""


def picture(operator: Operator) -> bytes:
    """Return a PNG of four digits, each with what becomes of it."""
    source = digits((_SIDE, _SIDE)).train.split
    chosen = torch.stack([(source.labels == name).nonzero()[0, 0] for name in _CLASSES])
    decision = Decision(operator=operator, strength=OPERATOR_FACTS[operator].strength.default)
    images = source.images[chosen].expand(-1, 3, -1, -1)
    sheet = make_sheet(
        decision,
        images,
        torch.arange(len(_CLASSES)),
        class_names=[str(name) for name in _CLASSES],
        # Squared, as in its paper: cells then differ as much as those of a trained network's maps,
        # without which the solvers have little to choose among four digits.
        saliency_BHW=spectral_residual(images / 255).square(),
        seed=_SEED,
    )
    return contact_sheet_png(sheet)


if __name__ == "__main__":
    main()
