"""The roles of parameters: an optimizer treats each role in its own way (`LanguageModel.parameter_groups`)."""

from __future__ import annotations

ROLES = {
    "matrix": 'a map between features; trained by Muon with `optimizer = "muon"`',
    "matrices": "a stack of such maps in the last two axes, such as experts; also trained by Muon",
    "embedding": "one row per token or position",
    "head": "the weight of an untied head",
    "vector": "a bias, a norm's weight, or a weight that is multiplied elementwise (also the filter of a convolution "
    "of each feature); no weight decay",
    "constant": "drawn once and never trained (`requires_grad=False`)",
}
