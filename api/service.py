"""What one running service holds; knows nothing of the routes that use it."""

import threading
from dataclasses import dataclass, field

from fastapi import Request

from api.current import CurrentAnswers
from api.options import ServiceOptions
from api.prediction_log import PredictionLog
from api.serving import PredictionDesk
from registry import Registry


@dataclass(frozen=True, slots=True)
class Service:
    """The registry asked, the answers kept ready, the desk that predicts, what it said, and the sign that the server
    must stop.
    """

    registry: Registry
    options: ServiceOptions
    current: CurrentAnswers
    desk: PredictionDesk
    predictions: PredictionLog
    stopping: threading.Event = field(default_factory=threading.Event)
    """Set when the server was asked to end: long polls then answer at once."""


def service_of(request: Request) -> Service:
    """The service this request's application was made with."""
    service: Service = request.app.state.service
    return service
