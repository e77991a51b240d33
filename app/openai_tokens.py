"""The vocabulary `cl100k_base`, to read token numbers back into the text they were made of.

Some clients of OpenAI's API (LangChain's default) send these numbers instead of text, whatever the model is called.
"""

import base64
from collections.abc import Sequence
from pathlib import Path

from app.errors import BadInput

SIZE = 100_256  # tokens; the special ones above them are never in text


class Vocabulary:
    """Reads a file in tiktoken's form: to each token a line with its bytes in base64 and its number, in order.

    Raises `BadInput` where the file is another one.
    """

    def __init__(self, path: Path) -> None:
        try:
            lines = [line.split() for line in path.read_bytes().splitlines()]
        except OSError as error:
            raise BadInput(f"ADIABAT_OPENAI_VOCABULARY: {path} cannot be read ({error.strerror}).") from error
        try:
            in_order = [int(number) for _, number in lines] == list(range(SIZE))
            self._tokens = [base64.b64decode(token, validate=True) for token, _ in lines]
        except ValueError:
            in_order = False
        if not in_order:
            raise BadInput(
                f"ADIABAT_OPENAI_VOCABULARY: {path} is not cl100k_base.tiktoken: {SIZE} lines of a token in base64 and "
                "its number are expected. docs/how-to.md says where to get it; without it the service takes text alone."
            )

    def text(self, numbers: Sequence[int]) -> str:
        """Raises `ValueError` where the numbers are not those of a text."""
        strange = next((number for number in numbers if not 0 <= number < SIZE), None)
        if strange is not None:
            raise ValueError(f"{strange} is no token of cl100k_base")
        try:
            return b"".join(self._tokens[number] for number in numbers).decode()
        except UnicodeDecodeError as error:
            raise ValueError("the tokens begin or end within a character") from error
