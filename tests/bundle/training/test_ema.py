from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine

from bundle.errors import InputError
from bundle.training.ema import EMA


def _train(network: torch.nn.Linear, average: EMA, values: list[float]) -> None:
    trainer = Engine(lambda engine, value: torch.nn.init.constant_(network.weight, value))
    average.attach(trainer)
    trainer.run(values, max_epochs=1)


def test_the_average_is_exponential_and_starts_at_the_first_step() -> None:
    network = torch.nn.Linear(1, 1)
    average = EMA(network, 0.75)
    _train(network, average, [8.0, 16.0, 0.0])
    assert network.weight.item() == 0
    assert average.network.weight.item() == pytest.approx(0.75 * (0.75 * 8 + 0.25 * 16))


def test_statistics_of_layers_are_copied() -> None:
    network = torch.nn.BatchNorm1d(1)
    average = EMA(network, 0.9)
    trainer = Engine(lambda engine, value: network(torch.full((4, 1), float(value))))
    average.attach(trainer)
    trainer.run([1, 2, 3], max_epochs=1)
    assert average.network.running_mean.item() == network.running_mean.item() != 0
    assert average.network.num_batches_tracked.item() == 3


def test_a_resumed_average_is_that_of_the_whole() -> None:
    network, values = torch.nn.Linear(1, 1), [8.0, 16.0, 0.0, 4.0]
    whole, first, second = (EMA(network, 0.9) for _ in range(3))
    _train(network, whole, values)
    _train(network, first, values[:2])
    second.load_state_dict(first.state_dict())
    _train(network, second, values[2:])
    assert second.network.weight.item() == whole.network.weight.item()


def test_without_a_decay_the_trained_network_is_kept() -> None:
    network = torch.nn.Linear(1, 1)
    average = EMA(torch.nn.DataParallel(network), 0.0)
    assert average.network is network
    assert average.state_dict() == {}
    average.load_state_dict({})


@pytest.mark.parametrize("decay", [1.0, -0.1])
def test_a_decay_that_is_none_is_refused(decay: float) -> None:
    with pytest.raises(InputError, match="ema_decay"):
        EMA(torch.nn.Linear(1, 1), decay)
