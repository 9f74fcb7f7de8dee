"""A believable outside world: stations, vehicles, meters, buildings, and the physics that judges the controller."""
