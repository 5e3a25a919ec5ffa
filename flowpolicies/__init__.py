"""Flow policies for offline and offline-to-online reinforcement learning, behind Stable-Baselines3's contract."""

__version__ = "0.1.0"
