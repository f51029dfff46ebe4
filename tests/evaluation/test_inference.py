import pytest
import torch
from torch import Tensor

from automix.evaluation.inference import EvaluationImages, ImageBatch, count_correct
from tests.evaluation.photos import make_photos


def predict_mean(images: Tensor) -> Tensor:
    """Two classes: dark and bright."""
    mean = images.float().mean((1, 2, 3))
    return torch.stack((128 - mean, mean - 128), dim=1)


def test_batches_hold_every_image_once_with_its_number() -> None:
    photos = make_photos(7)
    images = EvaluationImages(
        images=photos, labels=torch.arange(7), indices=torch.arange(7) + 10, batch_size=3
    )
    batches = list(images.batches())
    assert [len(batch.labels) for batch in batches] == [3, 3, 1]
    assert torch.equal(torch.cat([batch.images for batch in batches]), photos)
    assert torch.cat([batch.indices for batch in batches]).tolist() == list(range(10, 17))
    assert images.part(2, 5).indices.tolist() == [12, 13, 14]
    assert images.subset(torch.tensor([6, 0])).labels.tolist() == [6, 0]


def test_correct_predictions_are_counted_after_the_change() -> None:
    photos = make_photos(20)
    images = EvaluationImages.whole(photos, predict_mean(photos).argmax(1))
    assert count_correct(predict_mean, images) == 20

    def invert(batch: ImageBatch) -> Tensor:
        return 255 - batch.images

    inverted = predict_mean(255 - photos).argmax(1) == images.labels
    assert count_correct(predict_mean, images, change=invert) == int(inverted.sum())


def test_logits_that_are_not_numbers_are_never_correct() -> None:
    images = EvaluationImages.whole(make_photos(4), torch.zeros(4, dtype=torch.int64))

    def predict_nan(pixels: Tensor) -> Tensor:
        return torch.tensor([[torch.nan, 0.0]]).expand(len(pixels), 2)

    assert count_correct(predict_nan, images) == 0


@pytest.mark.parametrize(
    ("images", "labels", "expected"),
    [
        (torch.zeros(2, 3, 4, 4), torch.zeros(2), "expected uint8"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(3), "one label and one index"),
        (torch.zeros(0, 3, 4, 4, dtype=torch.uint8), torch.zeros(0), "at least one image"),
    ],
)
def test_images_that_do_not_fit_their_labels_are_refused(
    images: Tensor, labels: Tensor, expected: str
) -> None:
    with pytest.raises(ValueError, match=expected):
        EvaluationImages.whole(images, labels)
