import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from automix.configuration.task import ModelConfig
from automix.models.build import build_model
from automix.models.networks import draws_nothing, preact_resnet, small_cnn


def test_learns_the_digits_from_twenty_labels_per_class() -> None:
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor((pixels - 4.9) / 6.0, dtype=torch.float32).view(-1, 1, 8, 8)
    targets = torch.tensor(labels)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(images), generator=generator)
    train = torch.cat([order[targets[order] == digit][:20] for digit in range(10)])
    test = order[~torch.isin(order, train)]

    model = build_model(ModelConfig(), num_classes=10, channels=1, generator=generator)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=160)
    for _ in range(160):
        batch = train[torch.randint(len(train), (50,), generator=generator)]
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(model(images[batch]), targets[batch]))
        optimizer.step()
        schedule.step()
    model.eval()
    with torch.no_grad():
        accuracy = (model(images[test]).argmax(dim=1) == targets[test]).float().mean().item()
    assert accuracy >= 0.90


def test_networks_that_may_draw_random_numbers_are_told_from_those_that_do_not() -> None:
    class Noisy(nn.ReLU):
        """A subclass may do anything."""

    networks = (small_cnn(channels=1, num_classes=2), preact_resnet(18, channels=1, num_classes=2))
    for network in networks:
        assert draws_nothing(network)
        for other in (nn.Dropout(0.1), Noisy(), nn.RReLU()):
            assert not draws_nothing(nn.Sequential(network, other))
