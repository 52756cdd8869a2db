"""Log lines as text or as JSON, each with the id of its request."""

import json
import logging
import time
from functools import lru_cache

from extensions.observability.traces import existing_trace

# No log line contains these, and collecting them costs as much as writing the line.
logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


class LogFormatter(logging.Formatter):
    """Formats a record as one line: `text` for people, `json` for log collectors. Both contain the request id."""

    def __init__(self, style: str = "text") -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(service)s %(name)s [%(request_id)s] %(message)s")
        self.as_json = style == "json"

    def formatTime(self, record: logging.LogRecord, _format: str | None = None) -> str:  # noqa: N802  (logging's name)
        """Return the time in logging's own format; the part up to the second is cached."""
        return f"{_second(int(record.created))},{int(record.msecs):03}"

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for `record`."""
        trace = existing_trace()
        service, request_id = (trace.service, trace.request_id) if trace else ("-", "-")
        if not self.as_json:
            record.__dict__.update(service=service, request_id=request_id)
            return super().format(record)
        line = {
            "at": self.formatTime(record),
            "level": record.levelname,
            "service": service,
            "logger": record.name,
            "request_id": request_id,
            "traceparent": trace.traceparent if trace else None,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


@lru_cache(maxsize=2)
def _second(second: int) -> str:
    return time.strftime(logging.Formatter.default_time_format, time.localtime(second))
