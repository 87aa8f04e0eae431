"""Search: where in a large picture to look, found by asking the model itself about parts of it.

A search takes the asked model as an argument (`base.Asked`) and gives the view from which the question is answered.
"""

from argus.core.registry import Component

COMPONENTS = (
    Component(
        "search",
        "zoomeye",
        "argus.methods.search.zoomeye:ZoomEye",
        "zoom into the parts of a picture that the model, by its yes and no, thinks worth a look",
        "zoomeye",
    ),
)
