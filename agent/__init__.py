"""The agent: makes one device what its specification says, by itself."""
