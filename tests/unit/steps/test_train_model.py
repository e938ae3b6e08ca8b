"""The checkpoint that a training goes on from: the same where what differs changes no weight."""

import pytest

from imago.config import ModelConfig, TrainingConfig
from steps.train_model import checkpoint_key
from tests.unit.training.moths import small_moths

MOTHS = small_moths()


def _key(**options: object) -> str:
    return checkpoint_key(MOTHS, ModelConfig(), TrainingConfig.model_validate(options), 32, 0, "hub")


@pytest.mark.parametrize(
    "options", [{"auto_batch_size": True}, {"num_workers": 2}, {"micro_batch_size": 4}, {"reject_coverage": 0.9}]
)
def test_what_a_message_advises_goes_on_from_the_checkpoint(options: dict[str, object]) -> None:
    assert _key(**options) == _key()


def test_what_changes_the_weights_begins_anew() -> None:
    assert len({_key(), _key(epochs=7), _key(batch_size=8), _key(mixup=0.2)}) == 4
