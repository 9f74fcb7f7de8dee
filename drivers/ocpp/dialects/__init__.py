"""One module per OCPP version: tables of pure translations between wire payloads and neutral events."""
