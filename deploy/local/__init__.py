"""The suite on one machine without containers: private servers (`servers`), the services under a supervisor
(`suite`), and the commands that put the two together (`python -m deploy.local run`)."""
