"""What the BERT examples share: data, model, the training loop, baselines.

An ordinary package next to the scripts: `runner` ships it to the machines
together with the function that uses it.
"""
