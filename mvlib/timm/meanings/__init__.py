"""What timm means by names that mean something else in mvlib, or that have no other place in it."""
