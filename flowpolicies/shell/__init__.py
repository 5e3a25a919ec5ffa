"""The Stable-Baselines3 class that every algorithm extends, and what it is configured with."""
