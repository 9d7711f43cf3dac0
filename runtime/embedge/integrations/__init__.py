"""One thin module per framework; each imports its own framework, and only when it is used."""
