"""What tests of the whole API say again and again."""

PASSWORD = "correct horse 7 battery"


def ok(response, status=200):
    """The body of an answer that has this status."""
    assert response.status_code == status, f"{response.request.method} {response.request.url}: {response.text}"
    return response.json() if response.content else None


def bearer(session):
    """The header of whoever logged in."""
    return {"Authorization": f"Bearer {session['access_token']}"}
