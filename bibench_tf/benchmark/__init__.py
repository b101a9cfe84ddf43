"""A benchmark: what is asked for (spec), what that means run by run (resolve), the tracks, and the engine."""
