"""One thin module a framework; each imports its own framework, and only when it is used."""
