"""What may stand in a path or query: limits that hold for every route; knows nothing of what the values mean."""

from typing import Annotated

from fastapi import Depends, Path, Query

from api.schemas import STORABLE
from api.security import writer
from api.service import Service, service_of

LARGEST_NUMBER = 2**31 - 1
PLAIN_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"

Held = Annotated[Service, Depends(service_of)]
Writer = Annotated[str, Depends(writer)]
AdapterName = Annotated[str, Path(alias="name", pattern=PLAIN_NAME, description="Name of the adapter")]
AliasName = Annotated[str, Path(alias="alias", pattern=PLAIN_NAME, description="Name of the alias")]
SiteName = Annotated[str, Path(alias="site", pattern=STORABLE, description="Name of the site")]
Number = Annotated[int, Path(alias="number", ge=0, le=LARGEST_NUMBER, description="Number, from 1")]
Limit = Annotated[int, Query(ge=1, le=1000, description="At most this many, newest first unless said otherwise")]
