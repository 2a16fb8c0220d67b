"""What `haive bench` measures: writing, reading, REST and import, each beside its limit."""
