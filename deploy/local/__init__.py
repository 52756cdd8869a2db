"""Runs the suite on one machine without containers: private servers (`servers`), the services under a supervisor
(`suite`), and the commands that combine the two (`python -m deploy.local run`)."""
