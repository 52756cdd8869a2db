"""From a parsed request to the handler of its route: declarations, routing table, checks, dispatcher."""
