"""Which passwords are accepted."""

import re

from zxcvbn.frequency_lists import FREQUENCY_LISTS

from contracts.users import MIN_PASSWORD, WeakPassword

# What people type when a form insists on a password, after the 30,000 that leaked most often. Compared without case,
# and without the few digits and signs that are put around it: "Password123!" is "password".
_WELL_KNOWN = set(FREQUENCY_LISTS["passwords"]) | set(
    """
    password passw0rd p@ssword p@ssw0rd pass passwort parola parolam sifre sifrem şifre şifrem mypassword secret
    letmein welcome hosgeldiniz hoşgeldiniz login admin administrator root user guest test testing default changeme
    master superman batman dragon monkey shadow sunshine princess football baseball basketball whatever starwars
    iloveyou seniseviyorum trustno freedom computer internet samsung michael jennifer turkiye türkiye
    galatasaray fenerbahce fenerbahçe besiktas beşiktaş trabzonspor istanbul ankara izmir ataturk atatürk
    qwerty qwertyui qwertyuiop qwertz qwertzuiop azerty azertyuiop asdfgh asdfghjkl zxcvbn zxcvbnm
    qazwsx qazwsxedc qwerasdf qwerasdfzxcv abcdef abcdefg abcdefgh abcdefghi abcdefghij abcdefghijk
    1q2w3e4r5t 1q2w3e4r5t6y q1w2e3r4t5 q1w2e3r4t5y6 1qaz2wsx3e 1qaz2wsx3edc zaq12wsxcde3 qaz123wsx456
    a1b2c3d4e5 abcd1234abcd pass1234word correcthorsebatterystaple
    """.split()  # noqa: SIM905  (words read better without 80 pairs of quotes)
)
_DIGIT_RUNS = "01234567890123456789", "98765432109876543210"
_REPETITION = re.compile(r"(.+?)\1+", re.DOTALL)  # "aaaaaaaaaa", "passwordpassword"


def check_password(password: str, email: str) -> None:
    """Raise WeakPassword, saying why, unless `password` is fit for the account of `email`."""
    reason = _weakness(password.casefold(), email.casefold())
    if reason:
        raise WeakPassword(f"password: {reason}. {WeakPassword.detail}")


def _weakness(password: str, email: str) -> str | None:
    if len(password) < MIN_PASSWORD:
        return f"has fewer than {MIN_PASSWORD} characters"
    if _REPETITION.fullmatch(password):
        return "repeats the same characters"
    if _is_made_of(email, password):
        return "is little more than the e-mail address"
    if _is_well_known(password):
        return "is a well-known one"
    return None


def _is_made_of(email: str, password: str) -> bool:
    """Tell whether the address is in it, or its first part with too little besides."""
    name = email.partition("@")[0]
    return email in password or (name in password and len(password) - len(name) < MIN_PASSWORD)


def _is_well_known(password: str) -> bool:
    stem = password.strip("0123456789!?.@#$*_-+ ")
    if password in _WELL_KNOWN or (stem in _WELL_KNOWN and len(password) - len(stem) < MIN_PASSWORD):
        return True
    return any(password in run for run in _DIGIT_RUNS)
