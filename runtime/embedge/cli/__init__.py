"""The command `embedge`, a module a command. Nothing else imports it."""
