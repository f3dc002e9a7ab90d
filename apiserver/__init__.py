"""The API server: one registry, several protocols, one store."""
