import pytest

from extensions.cache.rate_limits import Policy


@pytest.mark.parametrize(
    ("setting", "policy"), [("600/60", Policy("x", 600, 60)), ("off", None), (False, None), ("", None)]
)
def test_valid_settings(setting, policy):
    assert Policy.of("x", setting) == policy


@pytest.mark.parametrize("setting", ["600", 600, "0/60", "600/0", "-1/60", "600/60/60", "many", True, "6.5/60"])
def test_an_invalid_setting_is_refused_with_its_name(setting):
    with pytest.raises(ValueError, match="the rate limit per_user must be requests/seconds"):
        Policy.of("per_user", setting)
