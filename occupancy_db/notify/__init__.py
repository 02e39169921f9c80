"""Messages about checks that turn bad and good again, by Apprise."""
