"""Secrets taken out of what is to be shown to others. Pure, and twice is as once.

What a secret looks like is known by the words before it and by its own form; both err on the side of
taking out too much.
"""

from __future__ import annotations

import re
from typing import Any

GONE = "(redacted)"

_WORDS = (
    r"password|passwd|passphrase|passcode|pwd|secret|token|credentials?|api[_-]?key|access[_-]?key"
    r"|private[_-]?key|client[_-]?key|signing[_-]?key|encryption[_-]?key|docker(?:config(?:json)?|cfg)"
    r"|signature|(?<![a-z0-9])(?:auths?|authorization|pass|pw|sig|cookie|session[_-]?id)"
)
_NAME = rf"[\w.-]{{0,120}}?(?:{_WORDS})(?:[_-]?(?:data|hash|value|key|id|file|base64))?"
_KEY = re.compile(rf"(?<![\w.-]){_NAME}$", re.IGNORECASE)
"""A name whose value is a secret: ``password``, ``registryToken``, ``AWS_SECRET_ACCESS_KEY``."""
_OPTION = re.compile(rf"--?{_NAME}|-p", re.IGNORECASE)
"""An argument after which a secret comes as the next one."""
_USER = re.compile(r"-u|--(?:proxy-)?user", re.IGNORECASE)
"""An argument after which NAME:PASSWORD comes."""

# No pattern may try the rest of a long text from each of many places: what can follow a place is bounded, or
# is taken out whole, or cannot hold another place to begin at.
_QUOTE = r"""(?:\\?["'])?"""
_NEXT = rf"{_QUOTE}(?:\s{{0,4}},\s{{0,80}}|[ \t]{{0,4}}\n[ \t]{{0,80}}-[ \t]{{1,4}}|\s{{1,4}})"
"""What is between an argument and the next: on a command line, in a JSON or a YAML list."""
_VALUE = r"""(?P<value>\[[^\]\n]*\]?|\{[^}\n]*\}?|\\"[^\\\n]*(?:\\"|$)|"(?:[^"\\\n]|\\.)*(?:"|$)
    |'[^'\n]*(?:'|$)|[^\s,;&}\]"'\\]+)"""
_PAIR = re.compile(
    rf"""(?P<key>(?<![\w.-])(?:--)?{_NAME}{_QUOTE}\s{{0,4}}(?:=>|[:=])\s{{0,4}}
    |(?<![\w.-])--?{_NAME}{_NEXT}|(?<!mkdir[ ])(?<![\w.-])-p{_NEXT}(?!["']?-)){_VALUE}""",
    re.IGNORECASE | re.VERBOSE | re.MULTILINE,
)
_LOGIN = re.compile(
    rf"""(?P<key>(?<![\w.-])(?:{_USER.pattern})(?:=|{_NEXT}){_QUOTE}(?!\d{{1,10}}:\d{{1,10}}(?![^\s"'\\,\]]))
    [^\s:"'\\]{{1,256}}:)(?P<value>[^\s"'\\]+)""",
    re.IGNORECASE | re.VERBOSE,
)
_SAID = re.compile(
    rf"""(?P<key>(?<![\w.-]){_NAME}[ \t]{{1,4}}(?:is|was):?[ \t]{{1,4}})
    (?!(?:not|no|required|missing|invalid|empty|expired|wrong|incorrect|unset|too|of|for|in)(?![^\s.,;:!])){_VALUE}""",
    re.IGNORECASE | re.VERBOSE | re.MULTILINE,
)
_LINE = re.compile(
    rf"""(?P<key>^[ \t|>-]{{0,200}}(?:export\s)?["']?(?<![\w.-]){_NAME}["']?[ \t]{{0,80}}[:=][ \t]{{0,80}})
    (?P<value>\S[^\n]*)""",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
_BLOCK = re.compile(
    rf"""(?P<key>(?<![\w.-]){_NAME}["']?[ \t]{{0,9}}=[ \t]{{0,9}})
    (?P<value>(?P<quote>\"{{3}}|'{{3}}).*?(?:(?P=quote)|\Z))""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
_SCALAR = re.compile(
    rf"""(?P<key>^(?P<indent>[ \t]{{0,200}})(?:-[ \t]{{1,9}})?["']?(?<![\w.-]){_NAME}["']?
    [ \t]{{0,9}}:[ \t]{{0,9}})
    (?P<value>[|>][^\n]{{0,80}}(?:\n(?:(?P=indent)[ \t][^\n]*|[ \t]{{0,200}}(?=\n)))+)""",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
"""YAML's ``token: |``, with all lines that are further in."""
_HEADER = re.compile(
    r"(?P<key>\b(?:proxy-)?authorization(?:\\?[\"'])?\s{0,4}[:=]\s{0,4}(?:\[\s{0,4})?)"
    r"(?P<value>(?:\\?[\"'])?[^\n\"'\\]+)",
    re.IGNORECASE,
)
_FORMS = (
    # A private key, also where its end is cut off.
    re.compile(
        r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)", re.DOTALL
    ),
    # A JSON Web Token; with what it hangs on, since each part of "eyJ-eyJ-" would be a place to begin at.
    re.compile(r"(?<![\w-])[\w-]{0,80}?\beyJ[\w-]{5,}\.[\w-]{3,}\.[\w-]*"),
    re.compile(r"\bK10[0-9a-f]{10,}::[\w:.-]+"),  # k3s and rke2
    re.compile(r"\b(?:gh[pousr]_\w{20,}|glpat-[\w-]{15,}|A[KS]IA[0-9A-Z]{12,}|xox[abp]-[\w-]{10,})"),
)
_SCHEME = re.compile(
    r"\b(?P<key>(?:Bearer|Basic|Digest|Negotiate)\s{1,8})(?P<value>[\w.~+/=-]{4,})", re.IGNORECASE
)
_URL = re.compile(r"""(?<=://)[^\s"']+""")
_BEFORE_COLON = re.compile(r"[^/?#@:]*:(?!\d{1,5}/)")
_BEFORE_AT = re.compile(r"[^/?#]+@")
_PLAIN = re.compile(r"(?:true|false|null|none|~|\d{1,3})", re.IGNORECASE)


MOST_PASSES = 20


def text(said: str) -> str:
    """A text of any kind: a log, a configuration, a command's output.

    One that is not done after MOST_PASSES was made to be so, and is taken out whole.
    """
    for _ in range(MOST_PASSES):
        # What is left when something has gone may be a secret's name beside another's value.
        before, said = said, _once(said)
        if said == before:
            return said
    return GONE


def _once(said: str) -> str:
    said = _URL.sub(_without_login, said)
    for form in _FORMS:
        said = form.sub(GONE, said)
    for pattern in (_BLOCK, _SCALAR, _LINE, _HEADER, _SCHEME, _LOGIN, _PAIR, _SAID):
        said = pattern.sub(_gone, said)
    return said


def _without_login(match: re.Match[str]) -> str:
    """A URL, or several in one word, without who logs in.

    A password need not be written as a URL wants it; a port is none. The word may be as long as the text, and
    each part of it is looked at once.
    """
    word = match[0]
    last, start, done = word.rfind("@"), 0, 0
    kept: list[str] = []
    while 0 <= start <= last:
        colon, login = _BEFORE_COLON.match(word, start), _BEFORE_AT.match(word, start)
        if colon and colon.end() < last:
            return f"{''.join(kept)}{word[done:start]}{GONE}{word[last:]}"
        if login:
            kept += [word[done:start], GONE]
            done = login.end() - 1
        following = word.find("://", start)
        start = following + 3 if following >= 0 else -1
    return "".join(kept) + word[done:]


def _gone(match: re.Match[str]) -> str:
    quoted = re.fullmatch(r"(\\?[\"'])?(.*?)(\\?[\"'])?", match["value"], re.DOTALL)
    before, inner, after = quoted.groups("") if quoted else ("", match["value"], "")
    if _PLAIN.fullmatch(inner):
        return match[0]
    return f"{match['key']}{before}{GONE}{after}"


def value(found: Any, key: str = "") -> Any:
    """JSON of any kind: what stands under a key that names a secret, and every text in it.

    The value of an environment variable is judged by its name; the data of a Secret is all taken out.
    """
    if found and isinstance(found, dict | list) and _KEY.search(key):
        return GONE
    if isinstance(found, dict):
        if found.get("kind") == "Secret":
            found = {k: v for k, v in found.items() if k not in ("data", "stringData")}
        named = str(found.get("name", "")) if "value" in found else ""
        return {k: value(v, named if k == "value" and named else str(k)) for k, v in found.items()}
    if isinstance(found, list):
        return [_item(item, before, key) for item, before in zip(found, [None, *found], strict=False)]
    if not isinstance(found, str):
        return found
    if found and _KEY.search(key) and not _PLAIN.fullmatch(found):
        return GONE
    return text(found)


def _item(found: Any, before: Any, key: str) -> Any:
    """One of a list, which may be an argument that another one announces."""
    if not isinstance(found, str) or not isinstance(before, str):
        return value(found, key)
    announced = _OPTION.fullmatch(before) or (_USER.fullmatch(before) and ":" in found)
    return GONE if announced else value(found, key)
