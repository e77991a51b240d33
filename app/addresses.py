"""Addresses as they may be shown."""

import re

USER = re.compile(r"//[^/@\s]*@")


def shown(url: str) -> str:
    """Without the user and password that it may hold: messages and logs are read by others."""
    return USER.sub("//", url)
