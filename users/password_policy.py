"""Which passwords are accepted."""

import math
import re

from zxcvbn import matching, scoring

from contracts.users import MIN_PASSWORD, WeakPassword

# The 30,000 passwords that leaked most often, and common choices. Compared without case and without the digits and
# signs around them: "Password123!" counts as "password".
_LEAKED = matching.RANKED_DICTIONARIES["passwords"]
_WELL_KNOWN = frozenset(
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
# At 100 guesses in 15 minutes (the limit of failed logins), this many guesses take about 100 days.
MIN_GUESSES = 10**6
# Score this many characters at a time: the run time of the matchers grows faster than the length of the text.
SCORED = 20
# Signs that people write in place of letters. Two of the signs stand for two letters each, hence two tables.
_LETTERS = tuple(
    str.maketrans("4@8({[<3690$5+%2!|17", letters) for letters in ("aabcccceggosstxziilt", "aabcccceggosstxzilil")
)
_MATCHERS = (
    matching.dictionary_match,
    matching.reverse_dictionary_match,
    matching.spatial_match,
    matching.repeat_match,
    matching.sequence_match,
    matching.regex_match,
    matching.date_match,
)
_SIGNS = re.compile(r"[\W_]+")
_REPETITION = re.compile(r"(.+?)\1+", re.DOTALL)  # "aaaaaaaaaa", "passwordpassword"


def check_password(password: str, email: str) -> None:
    """Raise WeakPassword with the reason unless `password` is strong enough for the account of `email`."""
    reason = _weakness(password.casefold(), email.casefold())
    if reason is None and _guesses(password) < MIN_GUESSES:
        reason = "is easily guessed"
    if reason:
        raise WeakPassword(f"password: {reason}. {WeakPassword.detail}")


def _weakness(password: str, email: str) -> str | None:
    if len(password) < MIN_PASSWORD:
        return f"has fewer than {MIN_PASSWORD} characters"
    bare = _SIGNS.sub("", password)
    spellings = [password, bare] if len(bare) >= MIN_PASSWORD else [password]
    if any(_REPETITION.fullmatch(one) for one in spellings):
        return "repeats the same characters"
    if _is_made_of(email, password):
        return "is little more than the e-mail address"
    if any(_is_well_known(one) for one in spellings):
        return "is a well-known one"
    return None


def _is_made_of(email: str, password: str) -> bool:
    """Tell whether the password contains the address, or the address's first part and few other characters."""
    name = email.partition("@")[0]
    return email in password or (name in password and len(password) - len(name) < MIN_PASSWORD)


def _is_well_known(password: str) -> bool:
    stem = password.strip("0123456789!?.@#$*_-+ ")
    more = len(password) - len(stem)
    if any(password in known or (stem in known and more < MIN_PASSWORD) for known in (_LEAKED, _WELL_KNOWN)):
        return True
    return any(password in run for run in _DIGIT_RUNS)


def _guesses(password: str) -> float:
    """Estimate the number of guesses that an attacker needs who knows how people choose passwords, as zxcvbn does.

    zxcvbn itself tries every way to read signs as letters, which takes seconds for a password crafted for that.
    """
    parts = (password[begin : begin + SCORED] for begin in range(0, len(password), SCORED))
    return math.prod(_guesses_of_part(part) for part in parts)


def _guesses_of_part(part: str) -> float:
    found = [match for matcher in _MATCHERS for match in matcher(part)]
    found += [match for letters in _LETTERS for match in matching.dictionary_match(part.translate(letters))]
    return float(scoring.most_guessable_match_sequence(part, found)["guesses"])
