"""From pairs to a model: sources, augmentation, losses, trainer, evaluation."""
