"""Text that can be sent: what JSON lets through and UTF-8 does not is refused."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator


def check_text(text: str) -> str:
    """Return ``text``.

    Raises:
        ValueError: It holds a lone surrogate, half of a character that is two in UTF-16.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the text holds half a character at position {error.start}; leave it out") from error
    return text


Text = Annotated[str, AfterValidator(check_text)]
