"""A client of server-sent events: it collects what a stream sends, in a greenlet of its own."""

import json

import eventlet
import httpx

from tests.support import TEST_TIMEOUT_SECONDS, eventually


class EventSource:
    """One connection to a stream: `with EventSource(url, headers) as source: source.wait_for(lambda e: ...)`."""

    def __init__(self, url, headers, last_event_id=None):
        self.events, self.comments, self.last_event_id = [], 0, last_event_id
        self.is_closed, self.is_counted, self.response = False, False, None
        more = {"Last-Event-ID": last_event_id} if last_event_id else {}
        self._client = httpx.Client(timeout=TEST_TIMEOUT_SECONDS)
        self._request = self._client.build_request("GET", url, headers={**headers, **more})
        self._reader = eventlet.spawn(self._read)

    def __enter__(self):
        eventually(lambda: self.response is not None or self.is_closed)
        return self

    def __exit__(self, *_error):
        self.close()

    def close(self):
        self._reader.kill()
        self._client.close()

    @property
    def data(self):
        """The data of all events without a name."""
        return [data for name, _, data in self.events if name == "message"]

    @property
    def ids(self):
        return [event_id for name, event_id, _ in self.events if name == "message"]

    @property
    def names(self):
        return [name for name, _, _ in self.events]

    def wait_for(self, check):
        """Wait until `check(self)` is truthy, and return it."""
        return eventually(lambda: check(self))

    def _read(self):
        try:
            response = self._client.send(self._request, stream=True)
            if response.status_code != 200:
                response.read()
            self.response = response
            self._parse(response.iter_lines())
        except httpx.HTTPError:
            pass
        finally:
            self.is_closed = True

    def _parse(self, lines):
        fields = {}
        for line in lines:
            if line.startswith(":"):
                self.comments += 1
            elif line:
                name, _, value = line.partition(": ")
                fields[name] = f"{fields[name]}\n{value}" if name in fields else value
            else:
                self.last_event_id = fields.get("id", self.last_event_id)
                if "data" in fields:
                    event = fields.get("event", "message")
                    self.events.append((event, fields.get("id"), json.loads(fields["data"])))
                fields = {}
