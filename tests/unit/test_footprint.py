"""What a training cost is told with everything that the figure hangs on."""

import pytest

from imago.footprint import Spent

HOUR = 3600.0


def test_energy_is_core_time_at_so_many_watts_and_carbon_is_energy_on_the_grid() -> None:
    spent = Spent(wall_seconds=HOUR, cpu_seconds=2 * HOUR, watts_per_core=10, grid_intensity=500)
    assert spent.watt_hours == pytest.approx(20.0)
    assert spent.grams_co2e == pytest.approx(10.0)
    assert spent.time() == "3600 s by the clock, 7200 CPU seconds"
    assert spent.estimate() == (
        "about 20 Wh, 10 g CO2e, at 10 W a core (training.watts_per_core), 500 g CO2e a kWh (training.grid_intensity); "
        "without memory, cooling and the making of the machine"
    )


def test_a_gpu_adds_its_power_limit() -> None:
    spent = Spent(cpu_seconds=HOUR, gpu_seconds=HOUR, gpu_watts=300, watts_per_core=10, grid_intensity=100)
    assert spent.watt_hours == pytest.approx(310.0)
    assert spent.grams_co2e == pytest.approx(31.0)
    assert "3600 GPU seconds" in spent.time()
    assert "300 W a GPU (its power limit)" in spent.estimate()


def test_a_gpu_whose_limit_is_not_known_is_said_to_be_left_out() -> None:
    spent = Spent(cpu_seconds=HOUR, gpu_seconds=HOUR, watts_per_core=10, grid_intensity=100)
    assert spent.watt_hours == pytest.approx(10.0)
    assert "without the GPU, whose power limit is not known, memory" in spent.estimate()
