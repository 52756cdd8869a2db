"""Which passwords are accepted."""

import re

from contracts.users import WeakPassword

MIN_LENGTH = 10

# What people type when a form insists on ten characters. Compared without case, and without the digits and signs
# that are put around it: "Password123!" is "password".
_WELL_KNOWN_STEMS = set(
    """
    password passw0rd p@ssword p@ssw0rd pass passwort parola parolam sifre sifrem şifre şifrem mypassword secret
    letmein welcome hosgeldiniz hoşgeldiniz login admin administrator root user guest test testing default changeme
    master superman batman dragon monkey shadow sunshine princess football baseball basketball whatever starwars
    iloveyou seniseviyorum trustno freedom computer internet samsung michael jennifer turkiye türkiye
    galatasaray fenerbahce fenerbahçe besiktas beşiktaş trabzonspor istanbul ankara izmir ataturk atatürk
    qwerty qwertyui qwertyuiop qwertz qwertzuiop azerty azertyuiop asdfgh asdfghjkl zxcvbn zxcvbnm
    qazwsx qazwsxedc qwerasdf qwerasdfzxcv abcdef abcdefg abcdefgh abcdefghi abcdefghij abcdefghijk
    """.split()  # noqa: SIM905  (words read better without 80 pairs of quotes)
)
_WELL_KNOWN = set(
    """
    1q2w3e4r5t 1q2w3e4r5t6y q1w2e3r4t5 q1w2e3r4t5y6 1qaz2wsx3e 1qaz2wsx3edc zaq12wsxcde3 qaz123wsx456
    a1b2c3d4e5 abcd1234abcd pass1234word correcthorsebatterystaple
    """.split()  # noqa: SIM905  (as above)
)
_DIGIT_RUNS = "01234567890123456789", "98765432109876543210"
_REPETITION = re.compile(r"(.+?)\1+", re.DOTALL)  # "aaaaaaaaaa", "passwordpassword"


def check_password(password: str, email: str) -> None:
    """Raise WeakPassword, saying why, unless `password` is fit for the account of `email`."""
    reason = _weakness(password.casefold(), email.casefold())
    if reason:
        raise WeakPassword(f"password: {reason}. {WeakPassword.detail}")


def _weakness(password: str, email: str) -> str | None:
    if len(password) < MIN_LENGTH:
        return f"has fewer than {MIN_LENGTH} characters"
    if _REPETITION.fullmatch(password):
        return "repeats the same characters"
    if password in (email, email.partition("@")[0]):
        return "is the e-mail address"
    if _is_well_known(password):
        return "is a well-known one"
    return None


def _is_well_known(password: str) -> bool:
    if password in _WELL_KNOWN or password.strip("0123456789!?.@#$*_-+ ") in _WELL_KNOWN_STEMS:
        return True
    return any(password in run for run in _DIGIT_RUNS)
