"""facedex-server."""
