"""A benchmark: the specification, its meaning run by run (resolve), the base class of tracks, and the engine."""
