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
    r"|(?<![a-z0-9])(?:auths?|authorization|pass|cookie|session[_-]?id)"
)
_NAME = rf"[\w.-]{{0,120}}?(?:{_WORDS})(?:[_-]?(?:data|hash|value|key|id|file|base64))?"
_KEY = re.compile(rf"(?<![\w.-]){_NAME}$", re.IGNORECASE)
"""A name whose value is a secret: ``password``, ``registryToken``, ``AWS_SECRET_ACCESS_KEY``."""
_PAIR = re.compile(
    rf"""(?P<key>(?<![\w.-])(?:--)?{_NAME}(?:\\?["'])?\s{{0,4}}(?:=>|[:=])\s{{0,4}}|(?<![\w.-])--{_NAME}\s{{1,4}})
    (?P<value>\[[^\]\n]*\]?|\{{[^}}\n]*\}}?|\\"(?:[^\\\n])*(?:\\"|$)|"(?:[^"\\\n]|\\.)*(?:"|$)
    |'[^'\n]*(?:'|$)|[^\s,;&}}\]"'\\]+)""",
    re.IGNORECASE | re.VERBOSE | re.MULTILINE,
)
_LINE = re.compile(
    rf"""(?P<key>^[ \t|>-]{{0,200}}(?:export\s)?["']?(?<![\w.-]){_NAME}["']?[ \t]*[:=][ \t]*)
    (?P<value>\S[^\n]*)""",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
_BLOCK = re.compile(
    rf"""(?P<key>(?<![\w.-]){_NAME}["']?[ \t]{{0,9}}=[ \t]{{0,9}})
    (?P<value>(?P<quote>\"{{3}}|'{{3}}).*?(?:(?P=quote)|\Z))""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
_HEADER = re.compile(
    r"(?P<key>\b(?:proxy-)?authorization(?:\\?[\"'])?\s{0,4}[:=]\s{0,4}(?:\[\s{0,4})?)"
    r"(?P<value>(?:\\?[\"'])?[^\n\"'\\]+)",
    re.IGNORECASE,
)
_FORMS = (
    # A private key, also where its end is cut off.
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    # Who logs in, in a URL; a password that was not written as a URL wants it, too. A port is none.
    re.compile(r"(?<=://)(?:[^/?#\s\"'@:]+:(?!\d{1,5}/)[^\s\"']+|[^/?#\s\"']+)(?=@)"),
    re.compile(r"\beyJ[\w-]{5,}\.[\w-]{3,}\.[\w-]*"),  # a JSON Web Token
    re.compile(r"\bK10[0-9a-f]{10,}::[\w:.-]+"),  # k3s and rke2
    re.compile(r"\b(?:gh[pousr]_\w{20,}|glpat-[\w-]{15,}|A[KS]IA[0-9A-Z]{12,}|xox[abp]-[\w-]{10,})"),
)
_SCHEME = re.compile(
    r"\b(?P<key>(?:Bearer|Basic|Digest|Negotiate)\s+)(?P<value>[\w.~+/=-]{4,})", re.IGNORECASE
)
_PLAIN = re.compile(r"(?:true|false|null|none|~|\d{1,3})", re.IGNORECASE)


def text(said: str) -> str:
    """A text of any kind: a log, a configuration, a command's output."""
    before = None
    while (
        said != before
    ):  # what is left when something has gone may be a secret's name beside another's value
        before, said = said, _once(said)
    return said


def _once(said: str) -> str:
    for form in _FORMS:
        said = form.sub(GONE, said)
    for pattern in (_BLOCK, _LINE, _HEADER, _SCHEME, _PAIR):
        said = pattern.sub(_gone, said)
    return said


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
        return [value(item, key) for item in found]
    if not isinstance(found, str):
        return found
    if found and _KEY.search(key) and not _PLAIN.fullmatch(found):
        return GONE
    return text(found)
