"""Log lines, for people or for machines; each names the request that it belongs to."""

import json
import logging
import time
from functools import lru_cache

from extensions.observability.traces import existing_trace

# No log line shows these, and finding them out for each line costs as much as writing it.
logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


class LogFormatter(logging.Formatter):
    """One line a record: `text` for people, `json` for machines. Both carry the request's id and trace."""

    def __init__(self, style: str = "text") -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(service)s %(name)s [%(request_id)s] %(message)s")
        self.as_json = style == "json"

    def formatTime(self, record: logging.LogRecord, _format: str | None = None) -> str:  # noqa: N802  (logging's name)
        """Return when it was, as logging does; of the lines of a second each has the same but for the milliseconds."""
        return f"{_second(int(record.created))},{int(record.msecs):03}"

    def format(self, record: logging.LogRecord) -> str:
        """Return the finished line."""
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
