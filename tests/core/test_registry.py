"""Components by name: listing imports nothing heavy, and what is wrong is explained."""

import subprocess
import sys

import pytest
from pydantic import BaseModel

from argus.core.errors import RecipeError, UnknownNameError, nearest
from argus.core.registry import PACKAGES, build, component, components, options_type


def test_every_component_loads_and_documents_its_options() -> None:
    rows = components()
    assert len(rows) > 25
    for row in rows:
        assert row.kind in PACKAGES
        assert row.summary
        options = options_type(row.kind, row.name)
        assert issubclass(options, BaseModel)
        for name, field in options.model_fields.items():
            assert field.description, f"{row.kind} {row.name}: option {name} has no description"
        assert sys.modules[row.target.partition(":")[0]].__doc__, row.target


def test_listing_imports_no_heavy_library() -> None:
    code = (
        "import sys; from argus.core.registry import components; components();"
        "print([m for m in ('torch', 'transformers', 'matplotlib') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_unknown_names_give_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'fastervlm'"):
        component("reducer", "fastervml")
    with pytest.raises(UnknownNameError, match="Did you mean 'reducer'"):
        component("reduser", "fastervlm")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keap": 0.5}, "unknown option 'keap'. Did you mean 'keep'"),
        ({"keep": 2.0}, "option 'keep': .*got 2.0"),
        ({"keep": "much"}, "option 'keep': .*got 'much'"),
    ],
)
def test_wrong_options_name_the_field(options: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build("reducer", "fastervlm", options)


def test_the_nearest_name_and_the_whole_list() -> None:
    assert nearest("fastervml", ["fastv", "fastervlm"]) == "Did you mean 'fastervlm'? Valid: fastervlm, fastv."
    assert nearest("x", []) == "There is none yet."
