"""The file by which an endpoint is told whom it is to ask what it was asked itself."""

from pydantic import BaseModel, ConfigDict, Field


class ShadowNote(BaseModel):
    """Which version is asked as well, by which, how often, and where."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str
    champion: str  # the version that is to ask; any other passes it over
    version: str
    share: float = Field(ge=0.0, le=1.0)  # of the requests
    port: int  # on this machine
    key: str
