import pytest

from extensions.http.limits.user_quota import UserQuota
from extensions.http.message.errors import TooManyAtOnce


def test_a_user_may_have_so_many_requests_in_flight_and_no_more():
    quota = UserQuota(2)
    with quota.hold("a"), quota.hold("a"), quota.hold("b"):
        with pytest.raises(TooManyAtOnce) as refusal, quota.hold("a"):
            pass
        assert (refusal.value.status, refusal.value.allowed) == (429, 2)
    with quota.hold("a"):
        pass


def test_a_request_that_fails_is_no_longer_counted():
    quota = UserQuota(1)
    with pytest.raises(LookupError), quota.hold("a"):
        raise LookupError
    with quota.hold("a"):
        pass


@pytest.mark.parametrize(("max_in_flight", "user"), [(1, None), (0, "a")], ids=["anonymous", "no limit"])
def test_anonymous_callers_and_a_quota_of_zero_have_no_limit(max_in_flight, user):
    quota = UserQuota(max_in_flight)
    with quota.hold(user), quota.hold(user):
        pass
