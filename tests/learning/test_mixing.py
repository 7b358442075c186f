"""Mixtures of images: what a batch becomes, and where its chance comes from."""

import pytest
import torch

from continual.learning.mixing import Mixture, draw_mixture

CPU = torch.device("cpu")


def test_every_image_keeps_its_share_and_takes_the_rest_from_its_partner():
    values = torch.arange(12.0).reshape(3, 2, 2)
    mixed = Mixture(0.75, torch.tensor([2, 0, 1])).of(values)
    assert torch.equal(mixed[0], 0.75 * values[0] + 0.25 * values[2])
    assert torch.equal(mixed[1], 0.75 * values[1] + 0.25 * values[0])


def test_a_share_of_one_leaves_the_batch_as_it_is_to_the_last_bit():
    values = torch.randn(4, 3, generator=torch.Generator().manual_seed(5))
    assert torch.equal(Mixture(1.0, torch.tensor([3, 2, 1, 0])).of(values), values)


@pytest.mark.parametrize("concentration", [0.1, 0.4, 2.0])
def test_shares_are_the_larger_part_of_beta_and_partners_a_permutation(concentration):
    torch.manual_seed(11)
    drawn = [draw_mixture(8, concentration, CPU) for _ in range(2000)]
    assert all(0.5 <= mixture.share <= 1.0 for mixture in drawn)
    assert all(sorted(mixture.partners.tolist()) == list(range(8)) for mixture in drawn)
    smaller = torch.tensor([mixture.share * (1 - mixture.share) for mixture in drawn])
    # E[x(1 - x)] of Beta(a, a) is a / (2 (2a + 1)).
    assert smaller.mean().item() == pytest.approx(concentration / (2 * (2 * concentration + 1)), abs=0.01)


def test_the_same_state_of_torch_draws_the_same_mixture():
    torch.manual_seed(3)
    first = draw_mixture(16, 0.4, CPU)
    torch.manual_seed(3)
    again = draw_mixture(16, 0.4, CPU)
    assert first.share == again.share
    assert torch.equal(first.partners, again.partners)
