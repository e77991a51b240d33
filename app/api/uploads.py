"""Bodies that a route reads itself: JSON or a form with one file, whichever the Content-Type says."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, BinaryIO, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from app.errors import BadInput, InvalidField

MAX_FIELDS = 16
MAX_FIELD_BYTES = 65_536

Model = TypeVar("Model", bound=BaseModel)


def content_type(request: Request) -> str:
    """Without its parameters, in lower case; "" where none was sent."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_json(request: Request, model: type[Model]) -> Model:
    """The body as `model`. Raises what FastAPI raises for a body that does not fit."""
    if (kind := content_type(request)) != "application/json":
        raise InvalidField("Content-Type", f"is {kind!r}; send application/json, or a form with an archive.")
    body = await request.body()
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _invalid(error) from error


@asynccontextmanager
async def read_form(request: Request, model: type[Model], file_field: str) -> AsyncIterator[tuple[Model, BinaryIO]]:
    """The fields of a form as `model`, and its one file.

    The file is written to the folder for temporary files as it arrives and has no name there: nothing is left of it
    when the block ends, or the process. Fields that are no strings are JSON.
    """
    form = await _parsed(request)
    try:
        file = form.get(file_field)
        if not isinstance(file, UploadFile):
            raise InvalidField(file_field, "is missing; send the archive as a file of this form field.")
        yield _fields(form, model, file_field), file.file
    finally:
        await form.close()


async def _parsed(request: Request) -> FormData:
    parser = MultiPartParser(
        request.headers, request.stream(), max_files=1, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES
    )
    try:
        return await parser.parse()
    except MultiPartException as error:
        raise BadInput(f"The body is not a form that can be read: {error.message.rstrip('.').lower()}.") from error


def _fields(form: FormData, model: type[Model], file_field: str) -> Model:
    names = [name for name, _ in form.multi_items()]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InvalidField(twice, "is there twice; send it once.")
    given = {name: _value(name, str(value), model) for name, value in form.items() if name != file_field}
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise _invalid(error) from error


def _value(name: str, text: str, model: type[BaseModel]) -> Any:
    field = model.model_fields.get(name)
    if field is None or field.annotation in (str, bool):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # the second: brackets in brackets in brackets
        raise InvalidField(name, f"is not JSON ({error}).") from error


def _invalid(error: ValidationError) -> RequestValidationError:
    return RequestValidationError([{**found, "loc": ("body", *found["loc"])} for found in error.errors()])
