"""What the gateway's streams of server-sent events show: the timelines of orders, and the events of the suite."""
