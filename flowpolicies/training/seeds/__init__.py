"""Several seeds, and values of hyperparameters, trained in one process."""

from flowpolicies.training.seeds.train import train_seeds as train_seeds
from flowpolicies.training.seeds.train import train_together as train_together
