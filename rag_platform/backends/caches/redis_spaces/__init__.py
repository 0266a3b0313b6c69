"""Vector spaces on a Redis server: by its vector sets, or as a packed matrix that readers mirror."""
