"""An Encoder as a server, over pipes or HTTP; knows no files of texts and no framework."""
