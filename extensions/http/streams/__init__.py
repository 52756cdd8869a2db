"""Server-sent events: responses that go on while there is something to tell, without a greenlet for each."""
