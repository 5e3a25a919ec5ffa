"""The replay buffer: storage of transitions, drawing of windows and goals, stacked images, rotation of shards."""
