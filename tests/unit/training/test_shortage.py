"""Where memory does not do, less is tried or advised: really less than what failed."""

import pytest
from torch.multiprocessing.spawn import ProcessExitedException

from imago.config import TrainingConfig
from imago.errors import ImagoError
from imago.training.shortage import for_less_memory

LACK = MemoryError("DefaultCPUAllocator: can't allocate memory")


@pytest.fixture(autouse=True)
def cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)


@pytest.mark.parametrize(("side", "now"), [(96, 16), (192, 11), (512, 8)])
def test_the_advice_is_half_of_what_was_taken_of_such_pictures(side: int, now: int) -> None:
    with pytest.raises(ImagoError, match=rf"for {now} pictures at a time: set training\.micro_batch_size={now // 2},"):
        for_less_memory(TrainingConfig(batch_size=32), LACK, side)
    assert for_less_memory(TrainingConfig(batch_size=32, auto_batch_size=True), LACK, side).micro_batch_size == now // 2


def test_what_is_only_likely_is_said_to_be() -> None:
    killed = ProcessExitedException("killed", error_index=0, error_pid=1, exit_code=-9)
    with pytest.raises(
        ImagoError, match="A process was killed, most likely because memory does not do for 16 pictures"
    ):
        for_less_memory(TrainingConfig(), killed, 96)


@pytest.mark.parametrize("options", [{}, {"auto_batch_size": True}])
def test_of_one_picture_less_is_a_smaller_one_or_fewer_activations(options: dict[str, bool]) -> None:
    training = TrainingConfig(micro_batch_size=1, **options)
    with pytest.raises(ImagoError, match=r"smaller data\.image_size, or training\.checkpoint_gradients=true\.$"):
        for_less_memory(training, LACK, 224)
    with pytest.raises(ImagoError, match=r"smaller data\.image_size\.$"):
        for_less_memory(training.model_copy(update={"checkpoint_gradients": True}), LACK, 224)
