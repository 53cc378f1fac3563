"""A plug-in of lmzoo: the moving-average language model. lmzoo imports `model` when the model is first used."""
