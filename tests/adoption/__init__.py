"""Programs of others, traced: `make matrix` runs them with the oldest and the newest releases of what they use."""
