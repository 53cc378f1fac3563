"""Tasks for `lm_eval` that need no download: they are made from the validation split of `pydocs`."""
