"""Texts without keys, passwords and tokens, for what people hand on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_BEGIN = r"-----BEGIN [A-Z0-9 ]+-----"
PEM = re.compile(rf"(?:\A|{_BEGIN})(?:(?!{_BEGIN}).)*?-----END [A-Z0-9 ]+-----", re.DOTALL)
"""From a beginning, or from where the text was cut, to an end."""
PEM_CUT = re.compile(rf"{_BEGIN}.*\Z", re.DOTALL)
LOGIN = re.compile(r"(?<=://)[^/\s\"'@]+:[^/\s\"'@]+(?=@)")
_NAMES = "secret|token|password|passwd|credentials?|api_?key|access_?key|secret_?key"
SECRET = re.compile(
    rf"""(?P<name>(?:{_NAMES})["']?\s*[:=]\s*)"""
    r"""(?P<value>"[^"\n]*"|'[^'\n]*'|[^\s,{}\[\]"']+)""",
    re.IGNORECASE,
)
_SECRET_NAME = re.compile(rf"(?:^|[_-])(?:{_NAMES}|key)$", re.IGNORECASE)
REMOVED = "[removed]"


def without_secrets(text: str) -> str:
    """Return a text without keys, certificates, passwords and tokens."""
    if "-----" in text:
        text = PEM_CUT.sub(REMOVED, PEM.sub(REMOVED, text))
    text = LOGIN.sub(REMOVED, text)
    return SECRET.sub(lambda found: found["name"] + f'"{REMOVED}"', text)


def redacted(value: Any) -> Any:
    """Return a JSON value without what its keys or texts call a secret."""
    if isinstance(value, Mapping):
        return {
            key: REMOVED if _SECRET_NAME.search(str(key)) else redacted(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [redacted(item) for item in value]
    return without_secrets(value) if isinstance(value, str) else value
