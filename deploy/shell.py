"""What `nameko shell` runs first (PYTHONSTARTUP in var/env): calls that nobody answers end after TIMEOUT seconds."""

from nameko.standalone.rpc import ClusterRpcClient

TIMEOUT = 10

shell = globals().get("n")
if shell is not None:  # another Python prompt of the same terminal reads this file too
    shell.disconnect()
    client = ClusterRpcClient(timeout=TIMEOUT)
    shell.rpc, shell.disconnect = client.start(), client.stop
    del client
del shell, ClusterRpcClient, TIMEOUT
