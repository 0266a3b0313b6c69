"""One file a group of routes; each offers ``routes(api)`` and touches nothing but what ``Api`` holds."""
