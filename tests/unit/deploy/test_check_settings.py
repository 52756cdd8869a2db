"""Production is refused before anything is made, with the names that users of compose set."""

import re
import subprocess
import sys

import pytest
import yaml

from deploy.config_file import ROOT

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SETTINGS = COMPOSE["services"]["check-settings"]["environment"]
SETTABLE = set(re.findall(r"\$\{(\w+):-", (ROOT / "docker-compose.yml").read_text()))


def check(env_file):
    """The exit code and the output of the compose service `check-settings` with this .env."""
    env = {name: interpolated(value, env_file) for name, value in SETTINGS.items() if value is not None}
    env |= {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-m", "deploy.check_settings"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stderr


def interpolated(value, env_file):
    return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda match: env_file.get(match[1]) or match[2], str(value))


def named(text):
    return {line.strip() for line in text.splitlines() if line.startswith("  ")}


@pytest.fixture(scope="module")
def missing():
    code, text = check({"ENVIRONMENT": "production"})
    assert code == 1
    assert "docs/operating.md" in text
    return named(text)


def test_it_names_every_password_by_the_name_that_users_set(missing):
    assert missing <= SETTABLE
    passwords = {name for name in SETTABLE if name.endswith(("_PASSWORD", "_DATABASE_URL"))} - {"DEMO_PASSWORD"}
    assert missing == passwords


def test_nothing_is_missing_once_all_of_them_are_set(missing):
    own = {name: f"own-{number}" for number, name in enumerate(missing) if name.endswith("_PASSWORD")}
    own |= {name: f"postgresql+psycopg2://x:own@postgres:5432/{name}" for name in missing if name.endswith("_URL")}
    assert check(own | {"ENVIRONMENT": "production"}) == (0, "")
    code, text = check(own | {"ENVIRONMENT": "production", "POSTGRES_PASSWORD": "postgres"})
    assert (code, named(text)) == (1, {"POSTGRES_PASSWORD"})


def test_development_needs_no_settings_and_other_environments_are_unknown():
    assert check({}) == (0, "")
    assert check({"ENVIRONMENT": "prod"})[0] == 1
