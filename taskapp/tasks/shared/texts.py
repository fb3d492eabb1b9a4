"""Text that can be sent: refuses what JSON allows but UTF-8 cannot encode."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator


def check_text(text: str) -> str:
    """Return ``text`` unchanged if UTF-8 can encode it.

    Raises:
        ValueError: It contains a lone surrogate, half of a character that takes two units in UTF-16.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the text has a lone surrogate at position {error.start}; remove it") from error
    return text


Text = Annotated[str, AfterValidator(check_text)]
