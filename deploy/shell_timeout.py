"""Run by `nameko shell` before its prompt (PYTHONSTARTUP): a call without a result ends after TIMEOUT seconds."""

from nameko.standalone.rpc import ClusterRpcClient

TIMEOUT = 10

shell = globals().get("n")
if shell is not None:  # absent where another Python prompt reads this file
    shell.disconnect()
    client = ClusterRpcClient(timeout=TIMEOUT)
    shell.rpc, shell.disconnect = client.start(), client.stop
    del client
del shell, ClusterRpcClient, TIMEOUT
