"""What makes arenas work inside other programs; each module is imported on its own."""
