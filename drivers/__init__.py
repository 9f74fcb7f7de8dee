"""The outside world as the gateway meets it: stations, meters, brokers. No allocation rule lives here."""
