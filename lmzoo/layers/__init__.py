"""What several backbones are built from. A layer maps (x_BTD, state) to (y_BTD, state) and owns the facts of its
parameters: how they begin (`init_parameters`), what role they play (`parameter_roles`), what they cost (`flops`)."""
