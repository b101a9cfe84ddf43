"""The process of measurements on this computer: its client, the process itself, and prefixes of networks."""
