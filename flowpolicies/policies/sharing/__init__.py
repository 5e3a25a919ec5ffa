"""Policies for others: folders with a model card, and repositories of the Hugging Face Hub."""
