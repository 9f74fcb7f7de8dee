"""OCPP central system: charging stations in, observations and commands out. No allocation rule here."""
