"""The shared vocabulary of Homeport and its pure cores: no I/O, no clock."""
