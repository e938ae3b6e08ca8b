"""What a training spent, and an estimate of the energy and carbon that went with it."""

from pydantic import BaseModel, ConfigDict

SECONDS_PER_HOUR = 3600


class Spent(BaseModel):
    """Time that a training took, and what an hour of it is taken to cost.

    The estimate is the time of each core and GPU multiplied by its power, and the energy by the carbon intensity of the
    grid, as in Green Algorithms (Lannelongue et al. 2021, https://doi.org/10.1002/advs.202100707), without its terms
    for memory and cooling. A GPU is taken to draw its power limit all the while, which is the most that it can.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0  # of all processes together
    gpu_seconds: float = 0.0  # of all GPUs together
    watts_per_core: float
    gpu_watts: float | None = None  # the power limit of one; None where it is not known
    grid_intensity: float  # g CO2e/kWh

    @property
    def watt_hours(self) -> float:
        """The energy of cores and GPUs."""
        joules = self.cpu_seconds * self.watts_per_core + self.gpu_seconds * (self.gpu_watts or 0.0)
        return joules / SECONDS_PER_HOUR

    @property
    def grams_co2e(self) -> float:
        """The greenhouse gases of that energy, as grams of CO2 with the same effect."""
        return self.watt_hours / 1000 * self.grid_intensity

    def time(self) -> str:
        """Say how long it took."""
        on_gpus = f", {self.gpu_seconds:.0f} GPU seconds" if self.gpu_seconds else ""
        return f"{self.wall_seconds:.0f} s by the clock, {self.cpu_seconds:.0f} CPU seconds{on_gpus}"

    def estimate(self) -> str:
        """Say what it cost, and beside it all that is assumed for that."""
        assumed = [f"{self.watts_per_core:g} W a core (training.watts_per_core)"]
        if self.gpu_seconds and self.gpu_watts:
            assumed.append(f"{self.gpu_watts:g} W a GPU (its power limit)")
        assumed.append(f"{self.grid_intensity:g} g CO2e a kWh (training.grid_intensity)")
        left_out = "memory, cooling and the making of the machine"
        if self.gpu_seconds and not self.gpu_watts:
            left_out = f"the GPU, whose power limit is not known, {left_out}"
        return (
            f"about {self.watt_hours:.2g} Wh, {self.grams_co2e:.2g} g CO2e, at {', '.join(assumed)}; without {left_out}"
        )
