"""The Stable-Baselines3 class that every algorithm extends, and its configuration."""
