"""Whether a finished file gives the vectors of its source. Changes nothing."""
