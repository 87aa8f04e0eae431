"""References to endpoints: `openai:<name>@<base-url>#<options>`."""

from __future__ import annotations

from urllib.parse import parse_qsl, urldefrag

from pydantic import Field

from argus.core.errors import ModelError
from argus.core.registry import Options, check_options

PREFIX = "openai:"


class EndpointOptions(Options):
    """What may stand behind `#` in a reference."""

    key_variable: str = Field("OPENAI_API_KEY", description="environment variable that holds the key; none is sent if unset")
    concurrency: int = Field(16, ge=1, le=512, description="requests under way at once")
    requests_per_minute: float | None = Field(None, gt=0, description="most requests started per minute")
    timeout: float = Field(120.0, gt=0, description="seconds that a request may take")
    retries: int = Field(6, ge=0, le=100, description="further tries of a request that failed")
    backoff: float = Field(1.0, ge=0, description="seconds before the first further try; doubles each time")
    longest_wait: float = Field(60.0, ge=0, description="most seconds between two tries")
    input_price: float = Field(0.0, ge=0, description="price of a million prompt tokens")
    output_price: float = Field(0.0, ge=0, description="price of a million generated tokens")


def is_endpoint(reference: str | None) -> bool:
    """Whether a model's reference names an endpoint."""
    return reference is not None and reference.startswith(PREFIX)


def parse_reference(reference: str) -> tuple[str, str, EndpointOptions]:
    """Name, base URL and options of `openai:<name>@<base-url>#<options>`.

    Raises:
        ArgusError: not of this form, or a wrong option.
    """
    plain, fragment = urldefrag(reference.removeprefix(PREFIX))
    name, sign, url = plain.rpartition("@")
    if not (sign and name and url.startswith(("http://", "https://"))):
        raise ModelError(
            f"'{reference}' is no endpoint.", hint="Write openai:<name>@<base-url>, the URL with http:// or https://."
        )
    options = check_options("model", plain, EndpointOptions, dict(parse_qsl(fragment, keep_blank_values=True)))
    assert isinstance(options, EndpointOptions)
    return name, url.rstrip("/"), options
