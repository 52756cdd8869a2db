import pytest
from nameko import config


@pytest.fixture(autouse=True)
def settings():
    """Restore the global configuration of Nameko after each test: some tests load config.yml with odd settings."""
    with config.patch({}):
        yield
